/** The live line on stderr: its colours are off where all others are. */
import { afterEach, expect, test, vi } from 'vitest';
import { startProgress } from '#src/cli/output';

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

test.each([
  ['', true],
  ['1', false],
])('NO_COLOR=%j', async (noColour, isColoured) => {
  vi.stubEnv('NO_COLOR', noColour);
  vi.stubEnv('FORCE_COLOR', '1');
  vi.stubEnv('TERM', 'xterm');
  vi.stubEnv('CI', undefined);
  const { stderr } = process;
  const own = [stderr.isTTY, stderr.columns] as const;
  const written: string[] = [];
  const write = vi.spyOn(stderr, 'write').mockImplementation((text) => written.push(String(text)) > 0);
  Object.assign(stderr, {
    isTTY: true,
    columns: 80,
    clearLine: () => true,
    cursorTo: () => true,
    moveCursor: () => true,
  });
  try {
    const progress = await startProgress('at work');
    progress.stop();
  } finally {
    [stderr.isTTY, stderr.columns] = own;
    write.mockRestore();
  }
  const text = written.join('');
  expect(text).toContain('at work');
  expect(text.includes('\u001b[36m')).toBe(isColoured);
});
