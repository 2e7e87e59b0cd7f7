# The front door. CMakeLists.txt is the build; this starts it, with what it needs installed where a target says so.

.DEFAULT_GOAL := all
.PHONY: all deps test coverage sim sim-proof torture demo bench bench-forward bench-python fuzz python install clean \
	check-style help

PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 1)
comma := ,

# A build directory of its own for each way of testing; the multiplier stretches time limits where programs are slow.
BUILD := build
CTEST_FLAGS :=
DEPS := build test
OPTIONS := -DASYNCORE_WERROR=$(if $(WERROR),ON,OFF)
ifdef SANITIZE
  ifdef VALGRIND
    $(error SANITIZE and VALGRIND: one at a time)
  endif
  BUILD := build-$(subst $(comma),-,$(SANITIZE))
  CK_TIMEOUT_MULTIPLIER ?= 4
  OPTIONS += -DASYNCORE_SANITIZE=$(SANITIZE)
endif
ifdef VALGRIND
  BUILD := build-valgrind
  CK_TIMEOUT_MULTIPLIER ?= 10
  OPTIONS += -DASYNCORE_VALGRIND=ON
  CTEST_FLAGS := -L unit
  DEPS += valgrind
endif
ifdef COVERAGE
  BUILD := build-coverage
  OPTIONS += -DASYNCORE_COVERAGE=ON
  DEPS += coverage
endif
CK_TIMEOUT_MULTIPLIER ?= 1
export CK_TIMEOUT_MULTIPLIER

# This make's flags are its own: the one that CMake starts gets its -j here.
ALONE := env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL
CONFIGURE = @$(ALONE) cmake -S . -B $(BUILD) $(OPTIONS)
COMPILE = @$(ALONE) cmake --build $(BUILD) -j $(JOBS)

all:
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE)

deps:
	@tools/deps.sh $(DEPS)

test: deps
	$(CONFIGURE) -DBUILD_TESTING=ON
	$(COMPILE)
	@cd $(BUILD) && $(ALONE) ctest --output-on-failure --no-tests=error -j $(JOBS) $(CTEST_FLAGS) \
		$(if $(TESTS),-R '$(TESTS)')

# The counters of an earlier run would be added to.
coverage:
	@if [ -d build-coverage ]; then find build-coverage -name '*.gcda' -delete; fi
	@$(MAKE) --no-print-directory test COVERAGE=1
	@tools/coverage build-coverage

sim-proof:
	@tools/deps.sh build test
	@$(ALONE) tests/faults/run --jobs $(JOBS) $(PROOF)

# SIM: options of the runner, such as --engine=poll.
SEEDS ?= 1000
SCENARIO ?= all
sim: deps
	$(CONFIGURE) -DBUILD_TESTING=ON
	$(COMPILE) --target sim
	@$(BUILD)/tests/sim $(SCENARIO) --seeds=$(SEEDS) $(SIM)

# Every call of the scenarios made to fail; TORTURE: options of the runner, such as --seeds=60.
torture: deps
	$(CONFIGURE) -DBUILD_TESTING=ON
	$(COMPILE) --target torture
	@$(BUILD)/tests/torture $(SCENARIO) --sites=$(BUILD)/sites.txt $(TORTURE)
	@tests/sim/sites.py $(BUILD)/tests/torture src $(BUILD)/sites.txt

demo:
	@tools/deps.sh build
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE)
	@tools/demo.sh $(BUILD)/bin

bench:
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE) --target bench
	@BIN="$(CURDIR)/$(BUILD)/bin" $(ALONE) bench/run $(BENCH)

# A peer that cannot be installed is left out.
bench-forward:
	@tools/deps.sh build
	@tools/deps.sh bench-forward || true
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE) --target bench_forward
	@BIN="$(CURDIR)/$(BUILD)/bin" $(ALONE) bench/forward $(BENCH)

# On Debian's Python, unless another is given. A peer that cannot be installed is left out.
bench-python:
	@tools/deps.sh build
	@tools/deps.sh bench-python || true
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE) --target bench_python
	@BIN="$(CURDIR)/$(BUILD)/bin" PYTHON="$(if $(filter file,$(origin PYTHON)),,$(PYTHON))" $(ALONE) bench/python $(BENCH)

# A build of its own, by clang. The tests replay what is kept without it.
fuzz: BUILD := build-fuzz
fuzz: OPTIONS := -DCMAKE_C_COMPILER=$(or $(CLANG),clang) -DASYNCORE_FUZZ=ON -DASYNCORE_SANITIZE=address$(comma)undefined
fuzz:
	@CLANG="$(or $(CLANG),clang)" tools/deps.sh build fuzz
	$(CONFIGURE) -DBUILD_TESTING=OFF
	$(COMPILE)
	@$(ALONE) fuzz/run "$(BUILD)" "$(or $(SECONDS),60)" $(TARGET)

# The package for one interpreter, into $(BUILD)/python-X.Y, to be put on PYTHONPATH. SANITIZE=address is for the extension
# too; its runtime then has to be preloaded into the interpreter.
PYTHON ?= python3
SANITIZER := $(if $(SANITIZE),-O1 -g -fno-omit-frame-pointer -fsanitize=$(SANITIZE))
python:
	@CFLAGS="$$CFLAGS $(SANITIZER)" LDFLAGS="$$LDFLAGS $(SANITIZER)" PYTHONPATH=python/backend "$(PYTHON)" -B -s \
		-m libasyncore_build $(BUILD)

install: all
	@$(ALONE) cmake --install $(BUILD) --prefix "$(abspath $(PREFIX))"

clean:
	rm -rf build build-*

check-style:
	@tools/check-style

help:
	@echo "make                   the library into build/lib, the programs into build/bin"
	@echo "make demo              installs what is missing, builds, fetches a page through portforward"
	@echo "make test              installs what is missing, builds, runs all tests"
	@echo "make test SANITIZE=address,undefined    the same under sanitizers (also SANITIZE=thread)"
	@echo "make test VALGRIND=1   the unit tests under valgrind"
	@echo "make test TESTS=chat   those whose names match (ctest -R), in any of these ways"
	@echo "make coverage          runs all tests and shows what they do not reach of src/; fails below 95 % of the lines"
	@echo "                       or 85 % of the branches"
	@echo "make sim-proof         shows how soon the simulation notices each known fault (PROOF='--only NAME')"
	@echo "make sim               programs in simulated worlds (SEEDS=1000 SCENARIO=echo SIM='--help': see tests/sim)"
	@echo "make torture           every system call and allocation of these programs made to fail once"
	@echo "make bench             measures (BENCH='--quick': bench/run's options)"
	@echo "make bench-forward     installs other forwarders and measures portforward beside them (BENCH='--quick')"
	@echo "make bench-python      measures the Python package beside the standard library's, uvloop and asyncio"
	@echo "make fuzz SECONDS=60   fuzzes each target of fuzz/ for so long (TARGET=name: that one; SEED=1: the same again)"
	@echo "make python PYTHON=python3.12           the Python package, into build/python-3.12, to be put on PYTHONPATH"
	@echo "make install PREFIX=/usr/local          DESTDIR is put before it, if set"
	@echo "make deps              installs what 'make test' needs"
	@echo "make check-style       what clang-format would change in the lines that you changed"
	@echo "make clean             removes build and build-*"
	@echo "JOBS=N sets how many compilers and tests run at once"
