# The commands of the README, one target each; CMake presets do the work.
.PHONY: help setup demo demo-train mpnet test bench check format
.DEFAULT_GOAL := help

JOBS ?= $(shell nproc)
BUILD = cmake --preset release && cmake --build --preset release -j $(JOBS)
SOURCES = $(shell git ls-files 'include/*.h' 'src/*.h' 'src/*.cpp' 'src/*.cu' 'src/*.cuh' 'tests/*.h' 'tests/*.cpp' \
  'tests/*.cu' 'bench/*.cpp' 'examples/*.cpp' 'fuzz/*.cpp')

help:
	@echo "make setup    install what is missing (distribution packages, pinned downloads); does nothing when all is there"
	@echo "              make setup PARTS='packages train' fetches libtorch (543 MB), which the training verbs need"
	@echo "make demo     a real encoder from its Hugging Face folder to INT8: quality, size, speed; build/demo/result.json"
	@echo "make demo-train   fine-tune, calibrate, train quantized, export, compile; fetches libtorch too (543 MB)"
	@echo "make mpnet    fetch all-mpnet-base-v2, a base-size model (405 MB; unpacked 438 MB), to OCTET_CACHE"
	@echo "make test     build and run the tests (no download; tests that lack their data or a GPU say so and are skipped)"
	@echo "make bench    FP32 against INT8 on this machine"
	@echo "make check    include rule and formatting; TIDY=1 adds clang-tidy"
	@echo "make format   format the sources in place"

PARTS ?= packages demo

setup:
	scripts/setup.sh $(PARTS)

test:
	scripts/setup.sh packages
	$(BUILD)
	ctest --preset release -j $(JOBS)

demo:
	scripts/setup.sh packages demo
	$(BUILD) --target octet_cli example_reviews example_search
	scripts/demo.sh

demo-train:
	scripts/setup.sh packages demo train
	$(BUILD) --target octet_cli example_reviews octet_train
	scripts/demo_train.sh

mpnet:
	scripts/setup.sh mpnet

bench:
	scripts/setup.sh packages demo
	$(BUILD) --target octet_cli
	scripts/bench.sh

check:
	scripts/setup.sh packages check
	clang-format --dry-run --Werror $(SOURCES)
	$(BUILD) --target test_house
	ctest --preset release -R '^House'
	@if [ -n "$(TIDY)" ]; then scripts/tidy.sh; fi

format:
	scripts/setup.sh check
	clang-format -i $(SOURCES)
