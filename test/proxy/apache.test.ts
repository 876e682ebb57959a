import { proxyTrials } from '../helper/proxy-trials.ts';

proxyTrials('apache');
