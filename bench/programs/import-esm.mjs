const start = performance.now();
await import('rollcall');
console.log(performance.now() - start);
