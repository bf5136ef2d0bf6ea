// The inventory, over gRPC. Start as many as you like: each takes a free port and puts itself into the registry.
import 'reflect-metadata';
import { join } from 'node:path';
import { Controller, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { GrpcMethod, type MicroserviceOptions, Transport } from '@nestjs/microservices';
import { RegistryModule, RegistryService } from 'rollcall/nest';

@Controller()
class InventoryController {
  constructor(private readonly registry: RegistryService) {}

  @GrpcMethod('Inventory', 'Reserve')
  reserve({ quantity }: { item: string; quantity: number }) {
    return { reserved: quantity <= 10, by: this.registry.registration?.id ?? '' };
  }
}

@Module({
  imports: [
    RegistryModule.forRoot({
      registry: process.env.ROLLCALL_REGISTRY ?? 'etcd://127.0.0.1:2379',
      register: { name: 'inventory', version: '1.0.0' },
    }),
  ],
  controllers: [InventoryController],
})
class InventoryModule {}

async function main() {
  const app = await NestFactory.createMicroservice<MicroserviceOptions>(InventoryModule, {
    transport: Transport.GRPC,
    options: { package: 'inventory', protoPath: join(__dirname, '../inventory.proto'), url: '0.0.0.0:0' },
  });
  app.enableShutdownHooks(); // so that SIGTERM takes it out of the registry before it stops answering
  await app.listen();
}

main();
