# Everything that is done to Registrar by hand. `make help` lists it.

NODE ?= node
ARGS ?=
HOSTS ?=
DAYS ?= 825
CERTS ?= certs
# Node's own is one less than there are cores; most tests wait for a process or a disk. Named one by one, every file has a
# process of its own also on Node 20, where `node --test` alone runs all of them in one.
JOBS ?= 3
TESTS ?= $(shell find test -name '*.test.ts' | sort)

# Node 22.18 and up run TypeScript as it is; Node 20 does with tsx.
RUN = $(NODE) $(shell $(NODE) -p 'process.features.typescript ? "" : "--import tsx"')

.PHONY: help run nginx apache cert test check types tidy coverage crash faults compact powercut build bench clean lock race timing etcd etcd-trials attack fuzz stall overload tls
.DEFAULT_GOAL := help

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

run: node_modules $(CERTS)/cert.pem ## runs the service; flags in ARGS="--port 9443"
	@$(RUN) bin/registrar.ts serve --certs '$(CERTS)' $(ARGS)

nginx apache: node_modules $(CERTS)/cert.pem
	@$(RUN) bin/registrar.ts proxy $@ --run --certs '$(CERTS)' $(ARGS)

nginx: ## runs the service with nginx in front, on ports 8444 (HTTPS) and 8080
apache: ## the same with Apache

cert: export HOSTS := $(HOSTS)
cert: export CERTS := $(CERTS)
cert: ## makes certs/key.pem and cert.pem; more names in HOSTS="…" keep the key; FORCE=1 makes both anew
	@set -eu; umask 077; say() { echo "make cert: $$*" >&2; }; force='$(filter 1 yes true,$(FORCE))'; \
	command -v openssl >/dev/null || { say 'there is no openssl here: install it (Debian: apt-get install openssl)'; exit 1; }; \
	mkdir -p "$$CERTS"; cd "$$CERTS"; names='DNS:localhost,IP:127.0.0.1,IP:::1'; set -f; \
	for host in $$HOSTS; do \
	  case $$host in \
	    *[!A-Za-z0-9.:*-]*) say "HOSTS: \"$$host\" is no host name and no address"; exit 1;; \
	    *:*) names="$$names,IP:$$host";; \
	    *[!0-9.]*) names="$$names,DNS:$$host";; \
	    *) names="$$names,IP:$$host";; \
	  esac; \
	done; \
	if [ -e key.pem ] && [ -e cert.pem ] && [ -z "$$force" ]; then \
	  if [ -z "$$HOSTS" ]; then say "$$CERTS/key.pem and cert.pem are there and were kept; FORCE=1 makes both anew"; exit; fi; \
	  own=$$(openssl x509 -in cert.pem -noout -subject -issuer | cut -d= -f2- | sort -u | wc -l); \
	  if [ "$$own" -ne 1 ]; then say "$$CERTS/cert.pem was issued by somebody else and was kept; FORCE=1 makes key and certificate anew"; exit 1; fi; \
	fi; \
	trap 'rm -f .key.pem .cert.pem' EXIT; \
	if [ -e key.pem ] && [ -z "$$force" ]; then cp key.pem .key.pem; \
	else openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out .key.pem; fi; \
	openssl req -x509 -new -key .key.pem -sha256 -days $(DAYS) -subj /CN=localhost -out .cert.pem \
	  -addext "subjectAltName=$$names" -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth; \
	chmod 600 .key.pem; chmod 644 .cert.pem; mv .key.pem key.pem; mv .cert.pem cert.pem; \
	say "$$CERTS/cert.pem is for $$names, for $(DAYS) days"

$(CERTS)/cert.pem:
	@$(MAKE) --no-print-directory cert

test: node_modules ## runs the tests, or those in TESTS="file …"; JOBS=3 files at once
	@$(RUN) --test --test-concurrency=$(JOBS) $(TESTS)

check: types tidy coverage ## types, tidiness, and all tests with the coverage floor

types: node_modules
	@node_modules/.bin/tsc --noEmit
	@node_modules/.bin/tsc -p lib/http/page

tidy: node_modules
	@$(RUN) --test test/tidy.test.ts

coverage: node_modules
	@node_modules/.bin/c8 --all --include 'lib/**' --exclude lib/user-store.ts --exclude lib/http/message.ts --exclude 'lib/http/page/**' --check-coverage --lines 95 --branches 95 \
	  --functions 0 --statements 95 --reporter text --reporter text-summary $(RUN) --test --test-concurrency=$(JOBS) $(TESTS)

crash: node_modules ## kills processes under load, TRIALS=30 times
	@TRIALS='$(or $(TRIALS),30)' $(RUN) --test test/crash.test.ts

faults: node_modules ## plays crashes and faults of the disk, TRIALS=20000 times each where there are so many
	@TRIALS='$(or $(TRIALS),20000)' $(RUN) --test test/store/file/crash-states.test.ts test/store/file/faults.test.ts \
	  test/store/file/bit-flips.test.ts test/strace.test.ts

lock: node_modules ## the lock among processes that are killed and stopped, TRIALS=500 times, all else in proportion
	@TRIALS='$(or $(TRIALS),500)' $(RUN) --test test/store/file/lock-trials.test.ts

race: node_modules ## four processes, then services, register the same TRIALS=50000 logins at once
	@TRIALS='$(or $(TRIALS),50000)' $(RUN) --test test/race.test.ts

compact: node_modules ## compacts a file of USERS=1000000 while it is written to, and says how long anybody waited
	@USERS='$(or $(USERS),1000000)' $(RUN) --test test/store/file/compact.test.ts

attack: node_modules ## what an attacker tries, in seconds each: test/attack/
	@$(RUN) --test test/attack/*.test.ts

fuzz: node_modules ## asks TRIALS=10000 requests out of a grammar, of SEED=…, and judges every answer
	@TRIALS='$(or $(TRIALS),10000)' $(if $(SEED),SEED='$(SEED)') $(RUN) --test test/attack/fuzz.test.ts

stall: node_modules ## CONNECTIONS=5000 that stall in four ways, while others are served
	@CONNECTIONS='$(or $(CONNECTIONS),5000)' $(RUN) --test test/attack/stall.test.ts

overload: node_modules ## ten times what can be hashed, for SECONDS=20, and a flood of reads
	@SECONDS='$(or $(SECONDS),20)' $(RUN) --test test/attack/overload.test.ts

tls: node_modules ## what testssl.sh finds with all that matters here: minutes
	@TLS_CHECKS=all $(RUN) --test test/attack/tls.test.ts

powercut: node_modules ## cuts the power of a file system in an image, TRIALS=10 times; as root, with xfsprogs
	@$(RUN) test/trial/powercut.ts ext4 '$(or $(TRIALS),10)'
	@$(RUN) test/trial/powercut.ts xfs '$(or $(TRIALS),10)'

timing: node_modules ## whether time tells that a login exists, over TRIALS=10000 failed sign-ins of each kind
	@$(RUN) test/trial/sign-in-timing.ts '$(or $(TRIALS),10000)'

etcd: node_modules ## runs an etcd cluster of three members here, to try it; Ctrl-C ends it
	@$(RUN) test/trial/etcd.ts $(ARGS)

etcd-trials: node_modules ## kills leaders of etcd, cuts members off, checks histories, TRIALS=50 times
	@TRIALS='$(or $(TRIALS),50)' $(RUN) --test test/store/etcd/trials.test.ts

build: node_modules ## makes dist/: plain JavaScript that runs with no node_modules
	@rm -rf dist
	@node_modules/.bin/tsc
	@rm -rf dist/test dist/bin/bench*
	@cp lib/password/common-passwords.txt dist/lib/password/
	@mkdir -p dist/lib/http/page
	@cp lib/http/page/*.html lib/http/page/*.css lib/http/page/*.svg lib/http/page/*.js dist/lib/http/page/
	@echo '{"type":"module"}' > dist/package.json
	@echo 'make build: node dist/bin/registrar.js serve'

bench: node_modules $(CERTS)/cert.pem ## measures the service against bare Node
	@$(RUN) bin/bench.ts $(ARGS)

clean: ## removes what was built; users, keys and certificates stay
	@rm -rf dist coverage node_modules

node_modules: package-lock.json
	@npm ci --no-audit --no-fund
	@touch node_modules
