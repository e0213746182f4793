# For scripts that ask retom eval several questions: sourced, with the folder `out` and the options `common` set.

ask() {  # a name and a title, then the options of its run
    ask_into "$out/$1" "$@"
}

ask_together() {  # the same in one folder for all, which share the pictures without merging
    ask_into "$out" "$@"
}

ask_into() {  # a folder, a name and a title, then the options of its run
    local folder=$1 name=$2 title=$3
    shift 3
    echo "$title" >&2
    retom eval "${common[@]}" "$@" -o "$folder" --json > "$out/$name.json"
    { echo "# $title"; echo; cat "$folder/tables.md"; } > "$out/$name.md"
}

collect() {  # the result's name, then those of its questions: one page and one JSON file of all
    local result=$1
    shift
    for name in "$@"; do cat "$out/$name.md"; done > "$out/$result.md"
    python "$(dirname "${BASH_SOURCE[0]}")/join.py" "$out" "$@" > "$out/$result.json"
}
