# fish completion for distmsgctl
#
# Asks distmsgctl itself, which knows its own grammar and can ask the daemon. For a distmsgctl that no
# package has installed, source it by: COMPLETE=fish distmsgctl | source

function __distmsgctl_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l lines (COMPLETE=fish distmsgctl -- $words "$word" 2>/dev/null)
    if test "$lines[1]" = files
        # The option before a = is a part of the word.
        set -l option (string match --regex -- '^--[^=]*=' "$word")
        for path in (__fish_complete_path (string replace -- "$option" '' "$word"))
            echo "$option$path"
        end
    else if test (count $lines) -gt 1
        printf '%s\n' $lines[2..-1]
    end
end

complete --command distmsgctl --no-files --arguments '(__distmsgctl_complete)'
