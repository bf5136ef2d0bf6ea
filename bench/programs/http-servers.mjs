// Three HTTP servers in one process, which answer at once.
import { createServer } from 'node:http';
import { serve } from '../support/child.mjs';

serve({
  start: () =>
    Promise.all(
      [1, 2, 3].map(() => {
        const server = createServer((request, response) => {
          request.resume();
          response.end('an order');
        });
        server.keepAliveTimeout = 60_000;
        return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server.address().port)));
      }),
    ),
});
