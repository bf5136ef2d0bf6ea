// Calls orders by name, eight calls at a time, and shows a counter until it is told to stop.
import { connect } from 'rollcall';
import { grpcClient } from 'rollcall/grpc';
import { Orders } from './orders.mjs';

const registry = await connect(); // ROLLCALL_REGISTRY
const orders = grpcClient(registry, Orders, 'orders', { allowLocal: true }); // all on one machine

const answers = {};
let [calls, errors, over] = [0, 0, false];

function get(order) {
  const deadline = Date.now() + 10_000;
  return new Promise((resolve, reject) => {
    orders.get({ value: order }, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer.value)));
  });
}

async function caller() {
  while (!over) {
    try {
      const from = await get(`${calls}`);
      answers[from] = (answers[from] ?? 0) + 1;
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
orders.close();
await registry.close();
