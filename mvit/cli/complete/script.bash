# Completion of mvit for bash: what may follow python launch.py and python -m mvit.
__mvit_complete() {
    local line=${COMP_LINE:0:COMP_POINT} words current
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    COMPREPLY=()
    if [[ $line == *launch* || $line == *mvit* ]]; then
        mapfile -t COMPREPLY < <(@PYTHON@ -I -m mvit.cli.complete bash "${words[@]}" 2> /dev/null)
    fi
    if (( ${#COMPREPLY[@]} == 0 )); then
        [[ $1 != *python* || -z $__mvit_python ]] || "$__mvit_python" "$@"
        return
    fi
    current=${words[-1]}
    # Readline replaces what follows the last = of an unquoted word.
    if [[ $COMP_WORDBREAKS == *=* && $current == *=* && $current != [\"\']* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${current%=*}="}")
    fi
    compopt -o nosort 2> /dev/null
    if (( ${#COMPREPLY[@]} == 1 )) && [[ ${COMPREPLY[0]} == *[=.] ]]; then
        compopt -o nospace
    fi
}

# What completes python otherwise goes on to do so.
if declare -F _comp_load > /dev/null; then
    _comp_load python > /dev/null 2>&1
elif declare -F _completion_loader > /dev/null; then
    _completion_loader python > /dev/null 2>&1
fi
if [[ $(complete -p python 2> /dev/null) =~ \ -F\ ([^ ]+)\  && ${BASH_REMATCH[1]} != __mvit_complete ]]; then
    __mvit_python=${BASH_REMATCH[1]}
fi
complete -o bashdefault -o default -F __mvit_complete python python3 python3.10 python3.11 python3.12 launch.py mvit
