# Everything that is done to Registrar by hand. `make help` lists it.

NODE ?= node
ARGS ?=
HOSTS ?=
DAYS ?= 825
CERTS ?= certs
PREFIX ?= /usr/local
DESTDIR ?=
# Node 22.18 and up run TypeScript as it is; Node 20 does with tsx, which is a development package.
RUN = $(NODE) $(shell $(NODE) -p 'process.features.typescript ? "" : "--import tsx"')
NEEDED = $(shell $(NODE) -p 'process.features.typescript ? "" : "node_modules"')

ifneq ($(filter -%,$(MAKECMDGOALS)),)
$(error Flags of the service go into ARGS: make run ARGS="--port 9443")
endif

.PHONY: help run install uninstall nginx apache caddy token cert test check types coverage trial crash damage faults compact powercut build bench clean lock race timing etcd etcd-trials attack fuzz stall overload tls
.DEFAULT_GOAL := help

help: ## lists the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 13

run: $(NEEDED) $(CERTS)/cert.pem ## runs the service; flags in ARGS="--port 9443"
	@$(RUN) bin/registrar.ts serve --certs '$(CERTS)' $(ARGS)

nginx apache caddy: $(NEEDED) $(CERTS)/cert.pem
	@$(RUN) bin/registrar.ts proxy $@ --run --certs '$(CERTS)' $(ARGS)

nginx: ## runs the service with nginx in front, on ports 8444 (HTTPS) and 8080
apache: ## the same with Apache
caddy: ## the same with Caddy

token: $(NEEDED) ## prints the admin token, and makes it if there is none: from then on requests are authenticated
	@$(RUN) bin/registrar.ts token $(ARGS)

cert: export HOSTS := $(HOSTS)
cert: export CERTS := $(CERTS)
cert: ## makes or renews the certificate, with the names in HOSTS="...", for the same key; FORCE=1 makes a new key as well
	@set -eu; umask 077; say() { echo "make cert: $$*" >&2; }; force='$(filter 1 yes true,$(FORCE))'; \
	command -v openssl >/dev/null || { say 'openssl is not installed. On Debian: apt-get install openssl'; exit 1; }; \
	names='DNS:localhost,IP:127.0.0.1,IP:::1'; set -f; \
	for host in $$HOSTS; do \
	  case $$host in \
	    *[!A-Za-z0-9.:*-]*) say "HOSTS: \"$$host\" is not a host name or an address."; exit 1;; \
	    *:*) names="$$names,IP:$$host";; \
	    *[!0-9.]*) names="$$names,DNS:$$host";; \
	    *) names="$$names,IP:$$host";; \
	  esac; \
	done; \
	[ -d "$$CERTS" ] || { mkdir -p "$$CERTS"; (cd "$$CERTS" && say "Created the directory \"$$PWD\"."); }; \
	cd "$$CERTS"; trap 'rm -f .key.pem .cert.pem' EXIT; \
	if [ -e key.pem ] && [ -z "$$force" ]; then \
	  openssl pkey -in key.pem -inform PEM -passin pass: -noout 2>/dev/null \
	    || { say "\"$$PWD/key.pem\" is not a key in PEM without a passphrase. It was kept, and nothing was made."; exit 1; }; \
	  if [ -e cert.pem ]; then \
	    [ "$$(openssl x509 -in cert.pem -noout -subject -issuer | cut -d= -f2- | sort -u | wc -l)" -eq 1 ] \
	      || { say "\"$$PWD/cert.pem\" was issued by an authority: renew it there. It was kept, and nothing was made."; exit 1; }; \
	    if [ -z "$$HOSTS" ]; then \
	      if openssl x509 -in cert.pem -noout -checkend 2592000 >/dev/null; then \
	        say "\"$$PWD/cert.pem\" is valid for 30 days or more, and was kept."; exit; \
	      fi; \
	      own=$$(openssl x509 -in cert.pem -noout -ext subjectAltName | sed -n 's/IP Address:/IP:/g; s/ //g; /:/p' | tail -n 1); \
	      names=$${own:-$$names}; \
	    fi; \
	  fi; \
	  cp key.pem .key.pem; \
	else openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out .key.pem; fi; \
	openssl req -x509 -new -key .key.pem -sha256 -days $(DAYS) -subj /CN=localhost -out .cert.pem \
	  -addext "subjectAltName=$$names" -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=serverAuth; \
	if [ -e key.pem ] && [ -n "$$force" ]; then \
	  old=key.pem.$$(date +%Y%m%dT%H%M%S); cp -p key.pem "$$old"; say "The key until now is kept as \"$$PWD/$$old\"."; \
	fi; \
	chmod 600 .key.pem; chmod 644 .cert.pem; mv .key.pem key.pem; mv .cert.pem cert.pem; \
	say "\"$$PWD/cert.pem\" is for $$names, for $(DAYS) days."

$(CERTS)/cert.pem:
	@$(MAKE) --no-print-directory cert

test: node_modules ## node --test, or the files in TESTS="file ...": one minute
	@$(RUN) --test $(TESTS)

check: types coverage ## types, tests, tidiness and the coverage floor: two minutes

types: node_modules ## the type checker: 5 seconds
	@node_modules/.bin/tsc --noEmit
	@node_modules/.bin/tsc -p lib/page

coverage: node_modules
	@node_modules/.bin/c8 --all --include 'lib/**' --exclude lib/user-store.ts --exclude 'lib/page/**' \
	  --check-coverage --lines 95 --branches 93 --functions 95 --statements 95 --reporter text --reporter text-summary $(RUN) --test

# A trial registers itself only where TRIAL is all, or the beginning of its name. Counts are TRIALS, SECONDS, CONNECTIONS, USERS and SEED.
TRIAL = TRIAL='$(or $(NAME),all)' $(foreach count,TRIALS SECONDS CONNECTIONS USERS SEED,$(if $($(count)),$(count)='$($(count))')) $(RUN) --test --test-concurrency=1

trial: node_modules ## every trial with small counts: eight minutes; some of them in TRIALS_IN="file ..."
ifdef TRIALS_IN
	@$(TRIAL) $(TRIALS_IN)
else
	@$(subst concurrency=1,concurrency=2,$(TRIAL)) $(filter-out $(TRIALS_OF_TIME),$(sort $(wildcard test/trial/*.test.ts)))
	@$(TRIAL) $(TRIALS_OF_TIME)
endif

# These compare times, so nothing else runs beside them.
TRIALS_OF_TIME = test/trial/bench.test.ts test/trial/load.test.ts

crash: TRIALS ?= 30
crash: NAME = crash
crash: node_modules ## kill -9 under load, TRIALS=30 times: a second each
	@$(TRIAL) test/trial/processes.test.ts

damage: TRIALS ?= 20
damage: node_modules ## kinds of damage to the users file, and what repair makes of each, TRIALS=20 times: three minutes
	@$(TRIAL) test/trial/repair.test.ts

faults: TRIALS ?= 20000
faults: node_modules ## crash states, failing calls and bit flips on a simulated disk, TRIALS=20000: four minutes
	@$(TRIAL) test/trial/crash-states.test.ts test/trial/faults.test.ts test/trial/strace.test.ts

lock: TRIALS ?= 500
lock: NAME = lock
lock: node_modules ## the lock among processes that are killed and stopped, TRIALS=500: five minutes
	@$(TRIAL) test/trial/processes.test.ts

race: TRIALS ?= 50000
race: NAME = race
race: node_modules ## four processes register the same TRIALS=50000 logins: three minutes
	@$(TRIAL) test/trial/processes.test.ts

compact: USERS ?= 1000000
compact: NAME = compact
compact: node_modules ## compacts USERS=1000000 under writes from two processes: one minute
	@$(TRIAL) test/trial/processes.test.ts

powercut: TRIALS ?= 10
powercut: node_modules ## cuts the power of a file system in an image, TRIALS=10: a second each; as root
	@$(TRIAL) test/trial/powercut.test.ts

attack: node_modules ## requests of an attacker, alone and behind nginx: one minute
	@$(TRIAL) test/trial/attack.test.ts

fuzz: TRIALS ?= 10000
fuzz: NAME = fuzz
fuzz: node_modules ## TRIALS=10000 requests of a grammar, with SEED=...: one minute
	@$(TRIAL) test/trial/load.test.ts

stall: CONNECTIONS ?= 5000
stall: NAME = stall
stall: node_modules ## CONNECTIONS=5000 stalled connections while others are served: one minute
	@$(TRIAL) test/trial/load.test.ts

overload: SECONDS ?= 20
overload: NAME = overload
overload: node_modules ## ten times the hashes that fit, for SECONDS=20, and a flood of reads: two minutes
	@$(TRIAL) test/trial/load.test.ts

tls: export TLS_CHECKS = all
tls: node_modules ## every check of testssl.sh that applies: three minutes
	@$(TRIAL) test/trial/tls.test.ts

timing: TRIALS ?= 10000
timing: NAME = timing
timing: node_modules ## compares the time of failed sign-ins, TRIALS=10000 of each kind: ten minutes
	@$(TRIAL) test/trial/load.test.ts

etcd: node_modules ## runs an etcd cluster of three members, to try it; Ctrl-C ends it
	@$(RUN) test/helper/etcd-run.ts run $(ARGS)

etcd-trials: TRIALS ?= 50
etcd-trials: node_modules ## kills etcd leaders, cuts members off, checks histories, TRIALS=50: half an hour
	@$(TRIAL) $(sort $(wildcard test/trial/etcd*.test.ts))

bench: node_modules $(CERTS)/cert.pem ## measures the service, as ratios; ARGS="--help": half an hour
	@$(RUN) test/bench/bench.ts run $(ARGS)

build: dist/package.json ## makes dist/: plain JavaScript that runs without node_modules: 10 seconds

dist/package.json: $(shell find bin lib -type f) package.json tsconfig.json | node_modules
	@rm -rf dist
	@node_modules/.bin/tsc
	@rm -rf dist/test
	@cp lib/password/common-passwords.txt lib/password/README.md dist/lib/password/
	@mkdir -p dist/lib/page dist/lib/deploy
	@cp $(filter-out %.ts %.md,$(wildcard lib/deploy/*)) dist/lib/deploy/
	@cp lib/page/*.html lib/page/*.css lib/page/*.svg lib/page/*.js dist/lib/page/
	@cp bin/package.json dist/bin/; cp bin/command/package.json dist/bin/command/; chmod +x dist/bin/registrar.js
	@$(NODE) -p 'const { name, version, type, license, engines } = require("./package.json"); JSON.stringify({ name, version, type, license, engines })' > $@
	@echo 'make build: node dist/bin/registrar.js serve'

install: program = $(DESTDIR)$(PREFIX)/lib/registrar
install: dist/package.json ## installs registrar below PREFIX=/usr/local, and DESTDIR= in front of it
	@rm -rf '$(program).new' '$(program).old'; mkdir -p '$(program).new' '$(DESTDIR)$(PREFIX)/bin'
	@cp -R dist/bin dist/lib dist/package.json LICENSE '$(program).new'; find '$(program).new' -name '*.d.ts' -exec rm {} +
	@chmod -R u=rwX,go=rX '$(program).new'
	@if [ -e '$(program)' ]; then mv '$(program)' '$(program).old'; fi; mv '$(program).new' '$(program)'; rm -rf '$(program).old'
	@ln -sf ../lib/registrar/bin/registrar.js '$(DESTDIR)$(PREFIX)/bin/registrar'
	@echo 'make install: $(DESTDIR)$(PREFIX)/bin/registrar runs $(program) with the node on the PATH'

uninstall: ## removes what make install has put there; data and certificates stay
	@rm -rf '$(DESTDIR)$(PREFIX)/lib/registrar' '$(DESTDIR)$(PREFIX)/bin/registrar'

clean: ## removes what was built; users, keys and certificates stay
	@rm -rf dist coverage node_modules

node_modules: package-lock.json
	@npm ci --no-audit --no-fund
	@touch node_modules
