/** Services on a cluster that loses members: what a client is answered, and what a load balancer. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cluster, withoutEtcd } from './helper/etcd-cluster.ts';
import { cheap, spawnService } from './helper/service.ts';
import { until } from './helper/temporary.ts';

test('cluster: services go on when a member is killed, say so when a majority is, and heal by themselves', { skip: withoutEtcd }, async (t) => {
  const cluster = await Cluster.start();
  t.after(() => cluster.stop());
  const args = [...cheap, '--etcd', cluster.endpoints.join(',')];
  const [first, second] = await Promise.all([spawnService(t, { args }), spawnService(t, { args })]);
  assert.equal((await first.ask('/user/', { method: 'POST', body: { login: 'alice', password: 'correct horse' } })).status, 201);

  await cluster.kill(await cluster.leader());
  await until(async () => (await first.ask('/user/', { method: 'POST', body: { login: 'bob', password: 'correct horse' } })).status === 409, 'bob is there');
  assert.equal((await second.ask('/user/bob')).status, 200);

  const [left, other] = cluster.members.filter(({ child }) => child !== undefined);
  await cluster.kill(other!);
  for (const { ask } of [first, second]) {
    assert.equal((await ask('/user/alice')).status, 503);
    const refused = await ask('/user/', { method: 'POST', body: { login: 'carol', password: 'correct horse' } });
    assert.equal(refused.status, 503);
    assert.doesNotMatch(refused.text, new RegExp(new URL(left!.url).host), 'nobody is told where etcd is');
    await until(async () => (await ask('/health/ready')).status === 503, 'it is not ready');
    assert.equal((await ask('/health/live')).status, 200);
  }
  cluster.launch(other!);
  for (const { ask } of [first, second]) {
    await until(async () => (await ask('/user/alice')).status === 200, 'it is back');
    await until(async () => (await ask('/health/ready')).status === 200, 'it is ready');
  }
  for (const { terminate, ended } of [first, second]) {
    terminate();
    assert.equal(await ended, 0);
  }
});
