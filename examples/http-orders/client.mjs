// Calls orders by name, eight calls at a time, and shows a counter until it is told to stop.
import { connect } from 'rollcall';

const registry = await connect(); // ROLLCALL_REGISTRY
const orders = registry.service('orders', { allowLocal: true }); // all on one machine

const answers = {};
let [calls, errors, over] = [0, 0, false];

async function caller() {
  while (!over) {
    try {
      const response = await orders.fetch(`/orders/${calls}`);
      const { from } = await response.json();
      answers[from] = (answers[from] ?? 0) + 1;
      if (answers[from] === 1) process.send?.(from); // demo.mjs waits for it
    } catch (error) {
      errors++;
      console.log(error.message);
    }
    calls++;
  }
}

const show = () => console.log(`${calls} calls, ${errors} errors: ${JSON.stringify(answers)}`);
const counter = setInterval(show, 500);
process.once('SIGTERM', () => {
  over = true;
});
await Promise.all(Array.from({ length: 8 }, caller));
clearInterval(counter);
show();
await registry.close();
