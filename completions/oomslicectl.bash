# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Completion of oomslicectl for bash; needs nothing but bash itself.

_oomslicectl() {
        local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
        local verbs='status slices decisions show explain verify restore'
        local verb='' word

        for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
                if [[ $word != -* ]]; then
                        verb=$word
                        break
                fi
        done

        COMPREPLY=()
        case $previous in
        --since)
                compopt -o filenames 2>/dev/null # quotes the blanks
                mapfile -t COMPREPLY < <(printf '%s\n' today yesterday '1h ago' '1d ago' '1week ago' |
                        while IFS= read -r word; do [[ $word == "$current"* ]] && printf '%s\n' "$word"; done)
                return
                ;;
        --limit)
                return
                ;;
        --directory)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -d -- "$current")
                return
                ;;
        esac

        case $verb in
        '')
                if [[ $current == -* ]]; then
                        mapfile -t COMPREPLY < <(compgen -W '-h --help --version' -- "$current")
                else
                        mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$current")
                fi
                return
                ;;
        esac

        if [[ $current == -* ]]; then
                local options='-h --help --json'
                case $verb in
                slices) options+=' --no-legend' ;;
                decisions) options+=' --since --limit --no-legend' ;;
                explain) options+=' --all' ;;
                restore) options+=' --directory' ;;
                esac
                mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
                return
        fi

        case $verb in
        slices | explain)
                mapfile -t COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                ;;
        show | restore)
                mapfile -t COMPREPLY < <(compgen -W "$(oomslicectl decisions --no-legend 2>/dev/null |
                        while read -r word _; do printf '%s\n' "$word"; done)" -- "$current")
                ;;
        verify)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current"; compgen -W "$(_oomslicectl_units)" -- "$current")
                ;;
        esac
}

# Names of running units.
_oomslicectl_units() {
        local name
        systemctl list-units --full --no-legend --no-pager --plain --type=slice,service,scope 2>/dev/null |
                while read -r name _; do
                        [[ $name == -* ]] || printf '%s\n' "$name"
                done
}

complete -F _oomslicectl oomslicectl
