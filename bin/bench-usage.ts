/** What `make bench` says of itself: its flags, and what its figures mean. */

export const usage = `Usage: make bench ARGS="[flags]"    Measures the service against bare Node, and checks its own answers.

  --rounds 5         turns of each side
  --seconds 4        the length of a turn
  --users 1000000    how many are many
  --only get,start   some of: register, get, get-log, create-64, create-many,
                     get-many, change-many, delete-many, page-many, get-p99,
                     sign-in-flood, basic, open, memory, export, start,
                     take-over, etcd-find, etcd-create, etcd-create-2,
                     etcd-create-3; all but the last four if it is left out
  --etcd             those four: services on an etcd cluster of three here
  --data /tmp        where the stores are made, and removed at the end: what a write costs depends on the disk
  --certs certs      the directory of cert.pem and key.pem, made by: make cert
  --help

Exit codes: 0 measured, 1 a check failed or nothing could be measured, 2 usage.
`;

export const notes = `
register ÷ pbkdf2Sync in a thread for each core. get: random users of many ÷ node:https, same bytes and cipher; get-log: the
same with a log line for each, which is read. create-64 ÷ one client at a time. …-many: among many ÷ among 1,000; pages of
100, from the middle. get-p99: of 8 clients that wait
10 ms between requests, while registrations keep every core hashing ÷ without them. sign-in-flood: POST /session
under a flood of GETs ÷ without it. basic: GETs by users who send their password with each. open: start to first answer, less an
empty service's. memory: heapUsed + external after a collection, above the empty service's, for each user. export: NDJSON
of everybody. start ÷ node:https with the same loader. take-over: kill -9 of the lock's holder to another's commit ÷ a
create. etcd-find, etcd-create: 64 clients of a store ÷ the same calls straight to the gateway; etcd-create-2, -3: so many
services ÷ one. A bar of sixteen cells is the mark. The clients take their part of the cores, from both sides alike. What this
does not show: a network, a proxy in front, a file larger than memory, another disk.
`;
