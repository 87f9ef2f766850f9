# SPDX-License-Identifier: GPL-2.0
# bash completion for minesp(8)

_minesp()
{
	local cur=$2 prev=$3 command=${COMP_WORDS[1]} words='' file
	local links="/etc/minesp/*.conf" plan="--rate --burst --years"

	case $COMP_CWORD,$command,$prev in
	1,*) words="new up down check show rekey spi key plan --help --version" ;;
	*,*,--from)
		mapfile -t COMPREPLY < <(compgen -o plusdirs -f -- "$cur")
		return ;;
	*,key,* | *,*,--suite)
		words="aes128gcm16 aes256gcm16 chacha20poly1305 aes128ccm8 aes128ccm16
			aes128gmac aes128-sha256 aes256-sha512 aes128ctr-sha256 null-sha256" ;;
	*,*,--rate | *,*,--burst | *,*,--years | *,*,--local | *,*,--peer | *,*,--tunnel | *,*,--fresh) ;;
	*,new,*) words="--local --peer --tunnel --suite --counter $plan --fresh --implicit-iv
			--clear-ntp --ip" ;;
	*,plan,*) words=$plan ;;
	*,spi,*) words="sa next free" ;;
	*,up,*) words="--no-wait --closed" ;;
	*,show,*) words="--json" ;;
	*,rekey,*) words="--ip --from --retire --force" ;;
	esac
	case $command in
	up | down | check | show | rekey)
		for file in $links; do
			[ -e "$file" ] && file=${file##*/} && words+=" ${file%.conf}"
		done ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _minesp minesp
