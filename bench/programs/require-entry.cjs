const start = performance.now();
require(process.argv[2]);
console.log(performance.now() - start);
