# Fuzzing of the C kernels; included by the top Makefile, run from the top directory.
#
#   make fuzz-c                      every target for FUZZ_SECONDS
#   make fuzz-c FUZZ_SECONDS=600 CLANG=clang-18
#
# New inputs stay in $(BUILD); what fails is left there as crash-*.

FUZZ_SECONDS ?= 30
CLANG ?= clang
BUILD ?= build/fuzz

FUZZ_C_TARGETS := mask utf8
FUZZ_C_FLAGS := -std=c11 -O2 -g -Wall -Wextra -Iext \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all

.PHONY: fuzz-c fuzz-c-clang $(FUZZ_C_TARGETS:%=fuzz-c-%)

fuzz-c: $(FUZZ_C_TARGETS:%=fuzz-c-%)

fuzz-c-clang:
	@command -v $(CLANG) >/dev/null 2>&1 || \
		{ echo "fuzz-c needs clang with libFuzzer; '$(CLANG)' was not found (set CLANG=...)" >&2; exit 1; }

$(BUILD)/fuzz_%: fuzz/fuzz_%.c ext/mask.h ext/utf8.h | fuzz-c-clang
	@mkdir -p $(BUILD)
	$(CLANG) $(FUZZ_C_FLAGS) $< -o $@

$(FUZZ_C_TARGETS:%=fuzz-c-%): fuzz-c-%: $(BUILD)/fuzz_%
	@mkdir -p $(BUILD)/corpus/$*
	$(BUILD)/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -max_len=2048 -timeout=10 -print_final_stats=1 \
		-artifact_prefix=$(BUILD)/ $(BUILD)/corpus/$* fuzz/corpus/$*
