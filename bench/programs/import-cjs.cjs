const start = performance.now();
require('rollcall');
console.log(performance.now() - start);
