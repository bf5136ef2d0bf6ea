// Starts the service that the command line names. Bootstrap hears SIGTERM, and so each leaves the registry before it stops.
import { join } from 'node:path';
import { Bootstrap } from '@midwayjs/bootstrap';

Bootstrap.configure({ baseDir: join(__dirname, process.argv[2] ?? 'orders') }).run();
