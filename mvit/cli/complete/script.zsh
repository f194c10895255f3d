# Completion of mvit for zsh: what may follow python launch.py and python -m mvit.
__mvit_complete() {
    local -a found more whole
    if [[ "$words" == *(launch|mvit)* ]]; then
        found=("${(@f)$(@PYTHON@ -I -m mvit.cli.complete zsh "${(@)words[1,CURRENT-1]}" "$PREFIX" 2> /dev/null)}")
        found=("${(@)found:#}")
    fi
    if (( $#found )); then
        more=("${(@M)found:#[^:]#[=.](:*|)}")
        whole=("${(@)found:#[^:]#[=.](:*|)}")
        _describe -V mvit more -S ''
        _describe -V mvit whole
    elif [[ "$words" == *(launch|mvit)* ]]; then
        compset -P '*='
        _files
    else
        ${__mvit_python:-_default}
    fi
}

(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
[[ ${_comps[python]} == __mvit_complete ]] || __mvit_python=${_comps[python]}
compdef __mvit_complete python python3 python3.10 python3.11 python3.12 launch.py mvit
