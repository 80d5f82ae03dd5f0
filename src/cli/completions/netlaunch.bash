# Completion of netlaunch for bash; netlaunch itself knows the words.
_netlaunch() {
    local current=${COMP_WORDS[COMP_CWORD]} line
    local -a lines
    mapfile -t lines < <("${COMP_WORDS[0]/#\~/$HOME}" __complete \
        "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    COMPREPLY=()
    for line in "${lines[@]:1}"; do
        COMPREPLY+=("$(printf %q "${line%%$'\t'*}")")
    done
    [[ $current != = ]] || current=
    case ${lines[0]} in
        files) compopt -o filenames
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;
        commands) compopt -o filenames
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -c -- "$current") ;;
    esac
}
complete -F _netlaunch netlaunch
