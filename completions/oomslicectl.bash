# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Completion of oomslicectl for bash; needs nothing but bash itself.

# Bash takes ":", "=" and "@" for ends of words, so that a unit's name or a setting is several. What is typed is taken from
# the line itself, and of what is offered only the part is given back that bash takes for the word.
_oomslicectl() {
        local words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
        if [[ -n ${COMP_LINE:-} ]]; then
                local line=${COMP_LINE:0:COMP_POINT}
                read -ra words <<<"$line"
                [[ $line == *[[:space:]] ]] && words+=('')
        fi
        local current=${words[-1]} previous=${words[-2]}

        COMPREPLY=()
        _oomslicectl_candidates

        local ends='' kept i
        for i in : = @; do
                [[ ${COMP_WORDBREAKS:-} == *"$i"* ]] && ends+=$i
        done
        if [[ -n $ends && $current == *["$ends"]* ]]; then
                kept=${current%"${current##*["$ends"]}"}
                kept=${kept%@} # which is the begin of a word, not its end
                for i in "${!COMPREPLY[@]}"; do
                        COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
                done
        fi
}

_oomslicectl_candidates() {
        local verbs='
                status
                slices
                top
                decisions
                show
                report
                metrics
                explain
                simulate
                record
                replay
                monitor
                doctor
                verify
                restore
                set
                reload
                act
                release
        '
        local verb='' word operands=0

        for word in "${words[@]:1:${#words[@]}-2}"; do
                if [[ $word == -* ]]; then
                        continue
                elif [[ -z $verb ]]; then
                        verb=$word
                else
                        operands=$((operands + 1)) # of verbs whose options take no values
                fi
        done

        case $previous in
        --since)
                compopt -o filenames 2>/dev/null # quotes the blanks
                mapfile -t COMPREPLY < <(printf '%s\n' today yesterday '1h ago' '1d ago' '1week ago' |
                        while IFS= read -r word; do [[ $word == "$current"* ]] && printf '%s\n' "$word"; done)
                return
                ;;
        --limit | --interval | --count | --duration | --at | --until)
                return
                ;;
        --set)
                compopt -o nospace 2>/dev/null
                _oomslicectl_settings "$current"
                return
                ;;
        --storm)
                compopt -o nospace 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -W 'fast: slow: many:' -- "$current")
                return
                ;;
        --with | --trace)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return
                ;;
        --domain)
                mapfile -t COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                return
                ;;
        -o | --output)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
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
                status | show) options+=' --no-pager' ;;
                slices) options+=' --no-pager --no-legend' ;;
                top) options+=' --interval --domain --all --once --no-legend' ;;
                decisions) options+=' --no-pager --since --limit --no-legend' ;;
                report) options+=' --since -o --output' ;;
                metrics) options+=' -o --output --serve' ;;
                explain) options+=' --no-pager --all' ;;
                simulate) options+=' --no-pager --set --with --storm --trace --at --until --domain --all' ;;
                record) options+=' --interval --duration' ;;
                replay) options+=' --no-pager --set --with' ;;
                monitor) options+=' --count --all' ;;
                doctor) options+=' --no-pager --quiet' ;;
                set) options+=' --runtime --revert' ;;
                restore) options+=' --directory' ;;
                esac
                mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
                return
        fi

        case $verb in
        set)
                if ((operands == 0)); then
                        mapfile -t COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                else
                        compopt -o nospace 2>/dev/null
                        mapfile -t COMPREPLY < <(compgen -S = -W 'Priority Protect Actions KillScope RankBy PressureTrigger
                                PressureVictims CooldownSec DryRun Tier OnDecision' -- "$current")
                fi
                ;;
        act)
                if ((operands == 0)); then
                        mapfile -t COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                elif ((operands == 1)); then
                        mapfile -t COMPREPLY < <(compgen -W 'warn reclaim throttle freeze purge: checkpoint start: terminate
                                kill' -- "$current")
                        [[ ${COMPREPLY[*]} != *: ]] || compopt -o nospace 2>/dev/null
                fi
                ;;
        slices | explain | release)
                mapfile -t COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                ;;
        show | report | restore)
                mapfile -t COMPREPLY < <(compgen -W "$(oomslicectl decisions --no-legend 2>/dev/null |
                        while read -r word _; do printf '%s\n' "$word"; done)" -- "$current")
                ;;
        record | replay)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                ;;
        verify)
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                # Files are quoted, which would put a backslash into a unit's name.
                [[ ${#COMPREPLY[@]} -eq 0 ]] || compopt -o filenames 2>/dev/null
                mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W "$(_oomslicectl_units)" -- "$current")
                ;;
        esac
}

# UNIT:KEY=VALUE
_oomslicectl_settings() {
        local keys='Priority= Protect= Actions= KillScope= RankBy= PressureTrigger= PressureVictims= CooldownSec= DryRun= Tier= OnDecision='
        if [[ $1 == *:* ]]; then
                mapfile -t COMPREPLY < <(compgen -P "${1%"${1##*:}"}" -W "$keys" -- "${1##*:}")
        else
                mapfile -t COMPREPLY < <(compgen -S : -W "$(_oomslicectl_units)" -- "$1")
        fi
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
