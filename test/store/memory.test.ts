import { MemoryUserStore } from '../../lib/store/memory.ts';
import { testUserStore } from '../helper/user-store-contract.ts';

testUserStore('memory', async () => new MemoryUserStore());
