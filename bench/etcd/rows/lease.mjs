// Keeping leases alive, each held by itself.

import { repeated, steady } from '../../support/steady.mjs';

const TTL = 15; // renewed every 5 s or so by both
const WINDOW = 12_000;
const WHO = [
  ['etcd3', 1000],
  ['grouped', 1000], // which is rollcall/etcd: the option says nothing about leases
  ['rollcall', 10_000],
];

export default {
  name: 'lease',
  async run({ contenders, progress, add }) {
    for (const [who, count] of WHO) {
      const some = async () => {
        const { calls, wall } = await contenders[who].ask('grant', { count: 200, ttl: TTL });
        await contenders[who].ask('release');
        return { pieces: calls, took: wall };
      };
      const warm = await steady(`leases granted, ${who}`, repeated(some));
      progress(`granting ${count} leases, ${who}`);
      const granted = await contenders[who].ask('grant', { count, ttl: TTL });
      add({ what: `lease: ${count.toLocaleString('en')} granted`, who: nameOf(who), steady: warm }, granted);
    }
    progress(`keeping them for ${WINDOW / 1000} s`);
    await Promise.all(
      WHO.map(async ([who, count]) => {
        const kept = await contenders[who].ask('keep', { ms: WINDOW });
        if (kept.lost > 0) throw new Error(`${who} lost ${kept.lost} leases`);
        add({ what: `lease: ${count.toLocaleString('en')} kept`, who: nameOf(who) }, kept);
      }),
    );
    progress('giving them back');
    for (const [who] of WHO) await contenders[who].ask('release');
  },
};

const nameOf = (who) => (who === 'grouped' ? 'rollcall' : who);
