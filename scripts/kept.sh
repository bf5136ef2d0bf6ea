# Sourced. Programs that take minutes to build are kept for other copies of the project on this machine, by what they were built from:
# in ROLLCALL_CACHE, else in the user's folder for caches. Nothing is lost when it is deleted.
kept=${ROLLCALL_CACHE:-${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}}
kept=${kept:+$kept/rollcall/$(uname -sm | tr ' ' -)}

# Puts a program that was kept in its place; fails where none was. Where it is from is a word without a dash.
take() { # program, what it is built from, where to
  [ -n "$kept" ] && [ -x "$kept/$1-$2" ] || return 1
  # A new file and a rename: a running server keeps its program.
  cp "$kept/$1-$2" "$3.new" && mv "$3.new" "$3" || return 1
  touch "$kept/$1-$2" 2>/dev/null || true # what is used stays
}

# Keeps a program, and the one before it. Where that can't be done it is built again another time.
keep() { # program, what it is built from, where it is
  [ -n "$kept" ] || return 0
  { mkdir -p "$kept" && cp "$3" "$kept/.$1.$$" && mv "$kept/.$1.$$" "$kept/$1-$2"; } 2>/dev/null ||
    { rm -f "$kept/.$1.$$" 2>/dev/null; echo "$1 could not be kept in $kept" >&2; return 0; }
  local old
  for old in $(ls -t "$kept" | grep -E "^$1-[^-]+\$" | tail -n +3); do rm -f "$kept/$old"; done
}
