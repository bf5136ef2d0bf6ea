const start = performance.now();
await import('rollcall/coord');
console.log(performance.now() - start);
