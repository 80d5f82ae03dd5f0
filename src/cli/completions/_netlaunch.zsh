#compdef netlaunch
# Completion of netlaunch for zsh; netlaunch itself knows the words.
_netlaunch() {
    local -a lines values shown
    local line
    lines=("${(@f)$("${(Q)words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${(@)lines[2,-1]}"; do
        values+=("${line%%$'\t'*}")
        shown+=("${line%%$'\t'*}  ${line#*$'\t'}")
    done
    (( ! $#values )) || compadd -l -d shown -a values
    case $lines[1] in
        files) _files ;;
        commands) _command_names -e ;;
    esac
}
if [[ $funcstack[1] == _netlaunch ]]; then
    _netlaunch "$@"
else
    compdef _netlaunch netlaunch
fi
