// The orders. They find the inventory by its name, and each order goes to the next instance of it.
import { Body, Configuration, Controller, Get, Inject, Param, Post } from '@midwayjs/core';
import * as koa from '@midwayjs/koa';
import * as rollcall from 'rollcall/midway';
import * as discovery from 'rollcall/midway/discovery';
import { RegistryServiceDiscovery } from 'rollcall/midway/discovery';

@Controller('/orders')
export class OrdersController {
  @Inject()
  discovery: RegistryServiceDiscovery;

  @Post('/')
  async order(@Body() order: { item: string; quantity: number }) {
    const { endpoints } = await this.discovery.getInstance('inventory');
    const response = await fetch(`${endpoints[0]}/reserve`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(order),
    });
    return await response.json();
  }

  /** Where the instances of a service are. */
  @Get('/who/:name')
  async who(@Param('name') name: string) {
    return await this.discovery.getInstances(name);
  }
}

@Configuration({
  imports: [koa, rollcall, discovery],
  importConfigs: [
    {
      default: {
        keys: 'example',
        koa: { port: Number(process.env.PORT ?? 7001) },
        registry: {
          client: { url: process.env.ROLLCALL_REGISTRY ?? 'etcd://127.0.0.1:2379' },
          register: { name: 'orders', version: '1.0.0' },
        },
      },
    },
  ],
})
export class OrdersConfiguration {
  async onServerReady() {
    console.log(`orders at http://127.0.0.1:${process.env.MIDWAY_HTTP_PORT}`);
  }
}
