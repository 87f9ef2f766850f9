# SPDX-License-Identifier: GPL-2.0
# bash completion for minesp(8). minesp itself lists its commands, options and suites.

_minesp()
{
	local cur=$2 prev=$3 command=${COMP_WORDS[1]} words file

	case $COMP_CWORD,$command,$prev in
	1,*)
		words="$(minesp --help | sed -n 's/^.* minesp \([a-z]*\) .*/\1/p') --help --version" ;;
	*,*,--from)
		mapfile -t COMPREPLY < <(compgen -o plusdirs -f -- "$cur")
		return ;;
	*,key,* | *,*,--suite)
		words=$(minesp key -- '' 2>&1 | sed -n 's/.*the suites are//p') ;;
	*,*,--rate | *,*,--burst | *,*,--years | *,*,--local | *,*,--peer | *,*,--tunnel | *,*,--fresh)
		words='' ;;
	*,spi,*)
		words="sa next free" ;;
	*)
		words=$(minesp --help | awk -v command="$command" '
			{ sub(/^usage:/, "") }
			$1 == "minesp" { ours = $2 == command }
			ours' | grep -o -- '--[a-z-]*') ;;
	esac
	case $command in
	up | down | check | show | rekey)
		for file in /etc/minesp/*.conf; do
			[ -e "$file" ] && file=${file##*/} && words+=" ${file%.conf}"
		done ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _minesp minesp
