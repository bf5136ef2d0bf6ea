// The inventory. Start as many as you like: each takes a free port and puts itself into the registry.
import { Body, Configuration, Controller, Inject, Post } from '@midwayjs/core';
import * as koa from '@midwayjs/koa';
import * as rollcall from 'rollcall/midway';
import { RegistryService } from 'rollcall/midway';

@Controller('/')
export class InventoryController {
  @Inject()
  registry: RegistryService;

  @Post('/reserve')
  async reserve(@Body() { quantity }: { item: string; quantity: number }) {
    return { reserved: quantity <= 10, by: this.registry.registration()?.id };
  }
}

@Configuration({
  imports: [koa, rollcall],
  importConfigs: [
    {
      default: {
        keys: 'example',
        koa: { port: 0 },
        registry: {
          client: { url: process.env.ROLLCALL_REGISTRY ?? 'etcd://127.0.0.1:2379' },
          register: { name: 'inventory', version: '1.0.0' },
        },
      },
    },
  ],
})
export class InventoryConfiguration {}
