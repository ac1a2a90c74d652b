import { describe, expect, it } from 'vitest';
import { PercpuRef } from '#src/sync/percpu-ref';

describe('PercpuRef', () => {
  it('is released by the last put after kill', () => {
    const ref = new PercpuRef('pagemap 1');
    ref.get(2);
    ref.get();
    expect(ref.dying).toBe(false);
    ref.kill();
    expect(ref.dying).toBe(true);
    const waiting = ref.waitReleased();
    const step = waiting.next();
    expect(step.done).toBe(false);
    ref.put(2);
    expect(ref.released).toBe(false);
    ref.put();
    expect(ref.released).toBe(true);
    expect(waiting.next().done).toBe(true);
  });

  it('refuses what would underflow or revive it', () => {
    const ref = new PercpuRef('pagemap 1');
    expect(() => ref.put(2)).toThrow('2 references dropped but 1 held');
    expect(() => ref.put()).toThrow('without kill()');
    const killed = new PercpuRef('pagemap 2');
    killed.kill();
    expect(() => killed.kill()).toThrow('killed twice');
    expect(() => killed.get()).toThrow('after the last was dropped');
  });
});
