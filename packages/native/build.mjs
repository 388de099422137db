// Builds build/frugal_native.node with CMake. Does nothing, quickly, when nothing has changed.
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const headers = createRequire(import.meta.url)('node-api-headers').include_dir;
const cmake = (...args) => execFileSync('cmake', args, { cwd: folder, stdio: 'inherit' });

cmake('-S', '.', '-B', 'build', '-DCMAKE_BUILD_TYPE=Release', `-DNODE_API_HEADERS=${headers}`);
cmake('--build', 'build', '-j2');
