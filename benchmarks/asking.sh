# For scripts that ask retom eval several questions: sourced, with the folder `out` and the options `common` set.

ask() {  # a name and a title, then the options of its run
    local name=$1 title=$2
    shift 2
    echo "$title" >&2
    retom eval "${common[@]}" "$@" -o "$out/$name" --json > "$out/$name.json"
    { echo "# $title"; echo; cat "$out/$name/tables.md"; } > "$out/$name.md"
}

ask_at() {  # a ratio, then the methods: in one folder for all ratios, which share the pictures without merging
    local ratio=$1
    shift
    echo "ratio $ratio" >&2
    retom eval "${common[@]}" --ratios "$ratio" --methods "$@" -o "$out" --json > "$out/ratio-$ratio.json"
    { echo "# Ratio $ratio"; echo; cat "$out/tables.md"; } > "$out/ratio-$ratio.md"
}

collect() {  # the result's name, then those of its questions: one page and one JSON file of all
    local result=$1
    shift
    for name in "$@"; do cat "$out/$name.md"; done > "$out/$result.md"
    python "$(dirname "${BASH_SOURCE[0]}")/join.py" "$out" "$@" > "$out/$result.json"
}
