// Where the programs are that the tests start. A missing one is a failure, never a skip.
import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';

function executable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A program of servers/bin. */
export function builtProgram(
  name:
    | 'etcd'
    | 'etcdctl'
    | 'etcdutl'
    | 'consul'
    | 'kube-apiserver'
    | 'rnacos'
    | 'nacos-java'
    | 'polaris'
    | 'toxiproxy'
    | 'discovery'
    | 'discovery-clocked'
    | 'peer',
): string {
  const path = fileURLToPath(new URL(`../../servers/bin/${name}`, import.meta.url));
  if (executable(path)) return path;
  throw new Error(`servers/bin/${name} is missing: run \`make servers\``);
}

/** A program of a Debian package. */
export function installedProgram(path: string, debianPackage: string): string {
  if (executable(path)) return path;
  throw new Error(`${path} (Debian package ${debianPackage}) is missing: run \`make servers\``);
}
