/** The text of a machine's two address maps: the physical one as /proc/iomem prints it, behind it the device private one. */

const PRIVATE_HEADING = 'Device private address space:\n';

/** Both maps as one text. A machine without device private memory has only the first. */
export const joinMaps = (physical: string, devicePrivate: string): string =>
  devicePrivate === '' ? physical : `${physical}\n${PRIVATE_HEADING}${devicePrivate}`;

/** The maps of a text that `joinMaps` made. */
export function splitMaps(text: string): { readonly physical: string; readonly devicePrivate: string } {
  const [physical = '', devicePrivate = ''] = text.split(`\n${PRIVATE_HEADING}`);
  return { physical, devicePrivate };
}
