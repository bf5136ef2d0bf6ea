// The addon is loaded with the first client, not with the package.
const { MemoryServer } = require('rollcall');
const start = performance.now();
MemoryServer.of('bench');
console.log(performance.now() - start);
