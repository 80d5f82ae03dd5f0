# Completion of netlaunch for fish; netlaunch itself knows the words.
function __netlaunch_complete
    set -l words (commandline -opc)
    set -l program $words[1]
    set -e words[1]
    set -l current (commandline -ct)
    set -l lines ($program __complete $words "$current" 2>/dev/null)
    set -l kind $lines[1]
    set -e lines[1]
    for line in $lines
        echo $line
    end
    switch $kind
        case files
            __fish_complete_path "$current"
        case commands
            complete -C "$current"
    end
end
complete -c netlaunch -f -a '(__netlaunch_complete)'
