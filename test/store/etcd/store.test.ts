/** The contract on a real cluster of three, and what a store in etcd has to do besides. */

import { after, before, test } from 'node:test';
import type { TestContext } from 'node:test';
import { EtcdUserStore } from '../../../lib/store/etcd/store.ts';
import type { EtcdUserStoreOptions } from '../../../lib/store/etcd/store.ts';
import { Cluster, newPrefix, withoutEtcd } from '../../helper/etcd-cluster.ts';
import { testUserStore } from '../../helper/user-store-contract.ts';

let cluster: Cluster;
if (withoutEtcd === false) {
  before(async () => (cluster = await Cluster.start()));
  after(() => cluster.stop());
}

async function open(t: TestContext, options: Partial<EtcdUserStoreOptions> = {}): Promise<EtcdUserStore> {
  const store = await EtcdUserStore.open({ endpoints: cluster.endpoints, prefix: newPrefix(), ...options });
  t.after(() => store.close());
  return store;
}

if (withoutEtcd === false) testUserStore('etcd', open);
else test('etcd: the contract', { skip: withoutEtcd }, () => undefined);
