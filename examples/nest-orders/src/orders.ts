// The orders, over REST. They find the inventory by its name, and each order goes to the next instance of it.
import 'reflect-metadata';
import { join } from 'node:path';
import { Body, Controller, Get, Injectable, Module, Param, Post, ServiceUnavailableException } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { type ClientGrpcProxy, ClientProxyFactory, Transport } from '@nestjs/microservices';
import type { ServiceInstance } from 'rollcall';
import { OnServiceChange, RegistryModule, RegistryService } from 'rollcall/nest';
import { firstValueFrom, type Observable } from 'rxjs';

interface Reservation {
  item: string;
  quantity: number;
}

interface Inventory {
  reserve(request: Reservation): Observable<{ reserved: boolean; by: string }>;
}

/** A gRPC client of one instance. */
class InventoryClient {
  private readonly proxy: ClientGrpcProxy;
  private readonly inventory: Inventory;
  private calls = 0;
  private gone = false;

  constructor(url: string) {
    this.proxy = ClientProxyFactory.create({
      transport: Transport.GRPC,
      options: { package: 'inventory', protoPath: join(__dirname, '../inventory.proto'), url },
    }) as ClientGrpcProxy;
    this.inventory = this.proxy.getService<Inventory>('Inventory');
  }

  async reserve(request: Reservation) {
    this.calls++;
    try {
      return await firstValueFrom(this.inventory.reserve(request));
    } finally {
      this.calls--;
      this.closeWhenIdle();
    }
  }

  /** The instance has left the registry: it still answers what is under way. */
  leave() {
    this.gone = true;
    this.closeWhenIdle();
  }

  private closeWhenIdle() {
    if (this.gone && this.calls === 0) this.proxy.close();
  }
}

/** One client for each instance of the inventory that is there now. */
@Injectable()
class InventoryClients {
  private readonly clients = new Map<string, InventoryClient>();
  private turn = 0;

  @OnServiceChange('inventory')
  changed(instances: readonly ServiceInstance[]) {
    const urls = instances.flatMap(({ endpoints }) =>
      endpoints
        .filter((endpoint) => endpoint.startsWith('grpc://'))
        .map((endpoint) => endpoint.slice('grpc://'.length)),
    );
    for (const url of urls) if (!this.clients.has(url)) this.clients.set(url, new InventoryClient(url));
    for (const [url, client] of this.clients) {
      if (urls.includes(url)) continue;
      this.clients.delete(url);
      client.leave();
    }
  }

  async reserve(request: Reservation) {
    const all = [...this.clients.values()];
    const client = all[this.turn++ % all.length];
    if (!client) throw new ServiceUnavailableException('no instance of the inventory is running');
    return await client.reserve(request);
  }
}

@Controller('orders')
class OrdersController {
  constructor(
    private readonly inventory: InventoryClients,
    private readonly registry: RegistryService,
  ) {}

  @Post()
  async order(@Body() { item, quantity }: Reservation) {
    return await this.inventory.reserve({ item, quantity });
  }

  /** Where the instances of a service are. */
  @Get('who/:name')
  async who(@Param('name') name: string) {
    return await this.registry.getService(name);
  }
}

@Module({
  imports: [
    RegistryModule.forRoot({
      registry: process.env.ROLLCALL_REGISTRY ?? 'etcd://127.0.0.1:2379',
      register: { name: 'orders', version: '1.0.0' },
    }),
  ],
  controllers: [OrdersController],
  providers: [InventoryClients],
})
class OrdersModule {}

async function main() {
  const app = await NestFactory.create(OrdersModule);
  app.enableShutdownHooks();
  await app.listen(process.env.PORT ?? 3000);
  console.log(`orders at ${await app.getUrl()}`);
}

main();
