/** Preloaded (`node --import`): from here on the host has what a browser has, and nothing of Node's own. */
import { register } from 'node:module';

const hooks = `
import { isBuiltin } from 'node:module';
export function resolve(specifier, context, next) {
  if (isBuiltin(specifier)) throw new Error(context.parentURL + ' imports ' + specifier + ', which a browser does not have');
  return next(specifier, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

for (const name of ['Buffer', 'process', 'global', 'setImmediate', 'clearImmediate', 'require', 'module']) {
  delete globalThis[name];
}
