# Completion of mvit for fish: what may follow python launch.py and python -m mvit.
function __mvit_is_typed
    string match -qr '(^|/)launch\.py$|(^|/)mvit$' -- (commandline -opc)
end

function __mvit_complete
    set -l current (commandline -ct)
    set -l found (@PYTHON@ -I -m mvit.cli.complete fish (commandline -opc) "$current" 2>/dev/null)
    if set -q found[1]
        printf '%s\n' $found
        return
    end
    set -l key (string match -r '^[^=]*=' -- "$current")
    for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- "$current"))
        printf '%s%s\n' "$key" "$path"
    end
end

for program in python python3 python3.10 python3.11 python3.12 launch.py mvit
    complete -c $program -n __mvit_is_typed -f -k -a '(__mvit_complete)'
end
