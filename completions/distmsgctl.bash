# bash completion for distmsgctl                                  -*- shell-script -*-
#
# Asks distmsgctl itself, which knows its own grammar and can ask the daemon. For a distmsgctl that no
# package has installed, source it by: source <(COMPLETE=bash distmsgctl)

_distmsgctl() {
    local cur=$2 rest=$COMP_LINE word kept i
    local -a words=() lines=()
    # Readline splits words at = and : too. What has no space before it belongs to the word before.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # The word at the cursor ends there, and has no quote at its beginning.
        [[ $i -lt $COMP_CWORD || $word == [=:]* ]] || word=$cur
        if [[ $i -gt 0 && $rest == [![:space:]]* ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"${COMP_WORDS[i]}"}
    done
    while IFS= read -r word; do
        lines+=("${word%%$'\t'*}")
    done < <(COMPLETE=bash distmsgctl -- "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    if [[ ${lines[0]-} == files ]]; then
        compopt -o default 2>/dev/null
        return 0
    fi
    # Only what follows the last = or : is to be replaced.
    kept=${words[${#words[@]} - 1]}
    kept=${kept%"$cur"}
    for word in "${lines[@]:1}"; do
        COMPREPLY+=("${word#"$kept"}")
    done
}

complete -F _distmsgctl distmsgctl
