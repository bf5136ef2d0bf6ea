const start = performance.now();
await import('rollcall/once');
console.log(performance.now() - start);
