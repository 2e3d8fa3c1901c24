# fish completion for distmsg
#
# Asks distmsg itself, which knows its own grammar and can ask the daemon. For a distmsg that no
# package has installed, source it by: COMPLETE=fish distmsg | source

function __distmsg_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l word (commandline --current-token --cut-at-cursor)
    set -l lines (COMPLETE=fish distmsg -- $words "$word" 2>/dev/null)
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

complete --command distmsg --no-files --arguments '(__distmsg_complete)'
