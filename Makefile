# setup · demo · test · bench · check · format: each one command.
.PHONY: test
test:
	cmake --preset release
	cmake --build --preset release
	ctest --preset release
