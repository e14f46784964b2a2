# What a machine is and has, in sections that begin with a line `@launch NONCE NAME`; the last is named `end`.
#
# $1: nonce, $2: seconds for a slow program (nvidia-smi), $3: for any other; then, in any order,
#   w:FOLDER to work in, d:PATH whose disk counts, x:PATH that may exist, p:PYTHON, t:TOOL, u:URL to try,
#   i:NAME of a variable whose value is an id, e:NAME of one that only counts as set or not,
#   h:HOSTNAME and m:MARKER of the machine on record, without which no file is made on it.
#
# Read-only, but for one small file made and removed in each folder to work in that exists.  Nothing is waited for
# without a limit, not even what can't be killed (nvidia-smi on a broken driver, df on a dead NFS server).  Variables
# are read by name only.  For dash, bash and busybox; no backslash stands before a backslash or a quote, which fish,
# as a login shell, would take out.
set -uf
# Nothing that is left over may hold the connection open; stdout is given only to what surely ends.
exec </dev/null 2>/dev/null
nonce=$1 slow=$2 quick=$3
shift 3
meant_host= meant_marker=
for word; do
  case $word in h:*) meant_host=${word#??} ;; m:*) meant_marker=${word#??} ;; esac
done
lc_before=${LC_ALL-}
LC_ALL=C
# Messages are read, so they have to be in English.  A non-login shell may lack sbin, a container NVIDIA's folder.
export LC_ALL
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin}:/usr/sbin:/sbin:/usr/local/nvidia/bin:/usr/lib/wsl/lib
export PATH
HOME=${HOME:-/}
# That of old busybox takes other arguments: it fails here.
timeout=
timeout -s KILL 1 cat && timeout=1

# --- limits and parallel work ---------------------------------------------------------------------------------------

# limited SECONDS PROGRAM...: runs it, killed when its time is up.
limited() {
  if [ -n "$timeout" ]; then
    timeout -s KILL "$@" </dev/null
    return
  fi
  limit=$1
  shift
  "$@" </dev/null &
  job=$!
  # Of its sleep something may be left, and that must not hold our output open.
  { sleep "$limit"; kill -9 "$job"; } >/dev/null 2>&1 &
  watch=$!
  wait "$job"
  status=$?
  kill "$watch"
  return "$status"
}

# copied SECONDS: stdin to stdout until either ends or the time is up.
copied() {
  if [ -n "$timeout" ]; then
    timeout "$1" cat
    return
  fi
  exec 3<&0
  cat <&3 &
  job=$!
  exec 3<&-
  { sleep "$1"; kill "$job"; } >/dev/null 2>&1 &
  watch=$!
  wait "$job"
  kill "$watch"
}

# patiently SECONDS COMMAND...: what it prints within that time.  It is only read from, so it can't keep us waiting.
patiently() {
  patience=$1
  shift
  { "$@" </dev/null & } | copied "$patience"
}

# also COMMAND...: the end of a pipeline in which all parts work at once, and print one after another.
also() {
  output=$("$@")
  cat
  printf '\n%s\n' "$output"
}

# each FUNCTION ITEM...: the function for every item, at once.
each() {
  function=$1 item=$2
  shift 2
  if [ $# -gt 0 ]; then
    patiently $((quick + 1)) "$function" "$item" | also each "$function" "$@"
  else
    patiently $((quick + 1)) "$function" "$item"
  fi
}

# section NAME COMMAND...: ends with a line `whole` if that came to its end within time and size.
section() {
  printf '\n@launch %s %s\n' "$nonce" "$1"
  shift
  patiently $((slow + 2)) whole "$@" | head -c 65536
}

whole() {
  "$@"
  printf '\nwhole\n'
}

# of KIND COMMAND... -- ARGUMENT...: the command with the arguments of that kind; nothing where there are none.
of() {
  kind=$1 command=$2
  shift 2
  [ "$1" = -- ] || { command="$command $1"; shift; }
  shift
  count=$#
  for word; do
    case $word in "$kind":*) set -- "$@" "${word#*:}" ;; esac
  done
  shift "$count"
  # Split on purpose: a command of ours and its first word.
  [ $# -eq 0 ] || $command "$@"
}

say() { printf '%s %.500s\n' "$1" "$2"; }

# expanded PATH: from home, and the user's cache folder where XDG moved it.
expanded() {
  case $1 in
    "~/.cache") printf %s "${XDG_CACHE_HOME:-$HOME/.cache}" ;;
    "~") printf %s "$HOME" ;;
    "~/"*) printf %s "$HOME/${1#??}" ;;
    /*) printf %s "$1" ;;
    *) printf %s "$PWD/$1" ;;
  esac
}

# located PROGRAM: its path, also where only a login shell would find it.
located() {
  found=$(command -v "$1")
  case $found in
    /*) printf %s "$found"; return ;;
  esac
  for folder in "$HOME/.local/bin" "$HOME/.cargo/bin" /root/miniconda3/bin /opt/conda/bin "$HOME/miniconda3/bin"; do
    [ -x "$folder/$1" ] && printf %s "$folder/$1" && return
  done
  # A name alone: busybox has it built in.
  [ -n "$found" ] && printf %s "$found"
}

# --- which machine ----------------------------------------------------------------------------------------------------

# As remote/onhost/process.py has it, word for word.
boot() {
  if id=$(cat /proc/sys/kernel/random/boot_id); then
    printf '%s-%s' "$id" "$(started || printf None)"
  else
    started_by_ps
  fi
}

started() {
  if stat=$(cat /proc/1/stat); then
    # The name in parentheses may hold anything.
    set -- ${stat##*")"}
    case $1 in Z | X) return 1 ;; esac
    shift 19
    printf %s "$1"
  elif [ -e /proc/self/stat ]; then
    return 1
  else
    started_by_ps
  fi
}

started_by_ps() {
  # Its words for days and months follow the locale.
  if [ -n "$lc_before" ]; then LC_ALL=$lc_before; else unset LC_ALL; fi
  set -- $(limited "$quick" ps -o stat=,lstart= -p 1)
  [ $# -gt 0 ] || return 1
  case $1 in Z* | X*) return 1 ;; esac
  shift
  printf %s "$*"
}

# value NAME: of our own environment, else of the first process's, which the provider started.
value() {
  eval "own=\${$1-}"
  [ -z "$own" ] || { printf %s "$own"; return; }
  printf '%s\n' "$first_environment" | sed -n "s/^$1=//p" | head -n 1
}

names() {
  first_environment=$(tr '\000' '\n' </proc/1/environ | head -c 65536)
  for word; do
    case $word in
      i:*) say "id ${word#??}" "$(value "${word#??}")" ;;
      e:*) [ -z "$(value "${word#??}")" ] || say set "${word#??}" ;;
    esac
  done
}

container() {
  if [ -e /run/.containerenv ]; then
    printf podman
  elif [ -n "${KUBERNETES_SERVICE_HOST-}" ]; then
    printf kubernetes
  elif [ -e /.dockerenv ]; then
    printf docker
  else
    kind=$(tr '\000' '\n' </proc/1/environ | sed -n 's/^container=//p' | head -n 1)
    [ -n "$kind" ] || kind=$(sed -n 's/.*\(kubepods\|docker\|containerd\|lxc\).*/\1/p' /proc/1/cgroup | head -n 1)
    [ -n "$kind" ] || { grep -q '^[^ ]* / overlay ' /proc/self/mounts && kind=container; }
    printf %s "${kind:-none}"
  fi
}

libc() {
  getconf GNU_LIBC_VERSION && return
  set +f
  for file in /lib/ld-musl-*; do
    [ -e "$file" ] && printf musl
  done
}

system() {
  say hostname "$(uname -n)"
  say clock "$(date +%s)"
  say boot "$(boot)"
  say kernel "$(uname -sr)"
  say arch "$(uname -m)"
  say user "$(id -un)"
  say uid "$(id -u)"
  say home "$HOME"
  say shell "${SHELL-}"
  say threads "${OMP_NUM_THREADS-}"
  say container "$(container)"
  say os "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | head -n 1)"
  say libc "$(libc)"
}

# --- processors and memory --------------------------------------------------------------------------------------------

# climbed MOUNT PATH FILE...: these files of a control group and of all above it; the tightest limit counts.
climbed() {
  mount=$1 group=${2%/}
  shift 2
  while :; do
    echo group
    for file; do
      [ ! -r "$mount$group/$file" ] || say "$file" "$(head -n 1 "$mount$group/$file")"
    done
    sed -n '/^inactive_file /p;/^total_inactive_file /p;/^hierarchical_memory_limit /p' "$mount$group/memory.stat"
    [ -n "$group" ] || break
    group=${group%/*}
  done
}

limits() {
  say online "$(getconf _NPROCESSORS_ONLN || grep -c ^processor /proc/cpuinfo)"
  say allowed "$(sed -n 's/^Cpus_allowed_list:[^0-9]*//p' /proc/self/status)"
  # It obeys these two, which say nothing about the machine.
  say nproc "$(unset OMP_NUM_THREADS OMP_THREAD_LIMIT; limited "$quick" nproc)"
  say model "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)"
  say total_kib "$(sed -n 's/^MemTotal:[^0-9]*\([0-9]*\) kB.*/\1/p' /proc/meminfo)"
  say available_kib "$(sed -n 's/^MemAvailable:[^0-9]*\([0-9]*\) kB.*/\1/p' /proc/meminfo)"
  [ -r /proc/meminfo ] || say total_bytes "$(limited "$quick" sysctl -n hw.memsize)"
  [ ! -r /proc/self/cgroup ] || while IFS= read -r line; do
    path=${line#*:} controllers=${line#*:}
    path=${path#*:} controllers=,${controllers%%:*},
    case $controllers in
      ,,) for mount in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        [ ! -e "$mount/cgroup.procs" ] || climbed "$mount" "$path" cpu.max memory.max memory.current
      done ;;
    esac
    case $controllers in
      *,cpu,*) for name in cpu cpu,cpuacct cpuacct,cpu; do
        [ ! -e "/sys/fs/cgroup/$name/tasks" ] ||
          climbed "/sys/fs/cgroup/$name" "$path" cpu.cfs_quota_us cpu.cfs_period_us
      done ;;
    esac
    case $controllers in
      *,memory,*) [ ! -e /sys/fs/cgroup/memory/tasks ] ||
        climbed /sys/fs/cgroup/memory "$path" memory.limit_in_bytes memory.usage_in_bytes ;;
    esac
  done </proc/self/cgroup
}

# --- GPUs -------------------------------------------------------------------------------------------------------------

devices() {
  say smi "$smi"
  say module "$(sed -n 's/.* \([0-9][0-9]*[.][0-9.]*\) .*/\1/p' /proc/driver/nvidia/version | head -n 1)"
  set +f
  for file in /dev/nvidia[0-9]*; do
    [ ! -e "$file" ] || say device "$file"
  done
}

# smi ARGUMENT...: what it says, then its status, which proves nothing.
smi() {
  [ -n "$smi" ] || return 0
  limited "$slow" "$smi" "$@" 2>&1
  printf '\nexit %s\n' "$?"
}

query() {
  [ -n "$smi" ] || return 0
  most=index,uuid,memory.total,memory.used,utilization.gpu,driver_version,mig.mode.current,ecc.mode.current,compute_cap
  # Old drivers refuse the whole query for one field they don't know.
  for fields in "$most,name" index,uuid,memory.total,memory.used,utilization.gpu,driver_version,name; do
    said=$(smi "--query-gpu=$fields" --format=csv,noheader,nounits | head -c 32768)
    printf '\nfields %s\n%s\n' "$fields" "$said"
    case ${said##*exit } in 0 | 124 | 137) return ;; esac
  done
}

# --- disks and folders ------------------------------------------------------------------------------------------------

# above FOLDER: itself, or the nearest one above it that exists.
above() {
  at=$1
  while [ ! -d "$at" ] && [ -n "$at" ]; do at=${at%/*}; done
  printf %s "${at:-/}"
}

disk() {
  say path "$1"
  path=$(expanded "$1")
  at=$(above "$path")
  say at "$at"
  [ "$at" = "$path" ] || echo absent
  say bytes "$(limited "$quick" df -kP "$at" | head -c 8192 | tail -n 1)"
  say inodes "$(limited "$quick" df -iP "$at" | head -c 8192 | tail -n 1)"
}

mounts() { sed 's/^[^ ]* \([^ ]* [^ ]*\) \(r[ow]\).*/\2 \1/' /proc/self/mounts; }

workspace() {
  say path "$1"
  path=$(expanded "$1")
  say is "$path"
  marker=$(head -c 64 "$path/launch/box-id")
  say marker "$marker"
  if ! meant "$marker"; then
    echo other
  elif [ -d "$path" ]; then
    written "$path"
  elif [ -e "$path" ]; then
    echo file
  else
    [ -w "$(above "$path")" ] && echo creatable || echo absent
  fi
}

# meant MARKER: whether this can be the machine on record; another one is only read from.
meant() {
  [ -z "$meant_host" ] || [ "$(uname -n)" = "$meant_host" ] || return 1
  [ -z "$meant_marker" ] || [ -z "$1" ] || [ "$1" = "$meant_marker" ]
}

# Only writing proves that a folder can be written to: think of read-only mounts, quotas, and inodes.
written() {
  # The file has to go, whoever is gone by then.
  trap '' HUP INT TERM PIPE
  file=$1/.launch-probe-$nonce
  # noclobber: made anew, never through a link.
  said=$( (umask 077; set -C; : >"$file") 2>&1) || { say no_create "$said"; return; }
  if said=$( (dd if=/dev/zero bs=4096 count=1 >>"$file") 2>&1) && [ -s "$file" ]; then
    rm -f "$file" && echo writable
  else
    rm -f "$file"
    # The last line, in which dd counts, says nothing.
    say no_write "$(printf %s "$said" | tr '\n' ' ')"
  fi
}

exists() {
  for path; do
    expanded=$(expanded "$path")
    if [ -e "$expanded" ] || [ -L "$expanded" ]; then say exists "$path"; else say absent "$path"; fi
  done
}

# --- programs ---------------------------------------------------------------------------------------------------------

pythons() {
  count=$# seen=:
  for name; do
    found=$(located "$(expanded_program "$name")") || continue
    case $found in /*) ;; *) continue ;; esac
    case $seen in *":$found:"*) continue ;; esac
    seen=$seen$found:
    set -- "$@" "$found"
  done
  shift "$count"
  [ $# -eq 0 ] || each python_version "$@"
}

expanded_program() {
  case $1 in */*) expanded "$1" ;; *) printf %s "$1" ;; esac
}

python_version() {
  say path "$1"
  code='import sys; sys.stdout.write("%d.%d.%d" % sys.version_info[:3])'
  say version "$({ limited "$quick" "$1" -I -S -c "$code"; echo " $?"; } | head -c 100)"
}

tools() {
  for name; do
    found=$(located "$name") && say "tool $name" "$found"
  done
}

tool_versions() {
  count=$#
  for name; do
    # Some are slow to say it, and one must not even be asked.
    case $name in conda | shutdown | nvidia-smi) continue ;; esac
    located "$name" >/dev/null && set -- "$@" "$name"
  done
  shift "$count"
  [ $# -eq 0 ] || each tool_version "$@"
}

tool_version() {
  case $1 in tmux) flag=-V ;; screen) flag=-v ;; *) flag=--version ;; esac
  say "version $1" "$(limited "$quick" "$(located "$1")" "$flag" 2>&1 | head -c 500 | head -n 1)"
}

# --- network ----------------------------------------------------------------------------------------------------------

# place URL: host and port alone.  A proxy's address may hold a password.
place() {
  where=${1#*://}
  where=${where##*@}
  where=${where%%[/?#]*}
  case ${where##*:} in "$where") ;; *[!0-9]*) where= ;; esac
  case $where in *[!A-Za-z0-9.:_-]*) where= ;; esac
  printf %s "$where"
}

network() {
  for name in http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; do
    eval "proxy=\${$name-}"
    [ -z "$proxy" ] || say "proxy $name" "$(place "$proxy")"
  done
  index=${PIP_INDEX_URL-}
  for file in "${PIP_CONFIG_FILE-}" "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf" \
    /etc/xdg/pip/pip.conf /etc/pip.conf; do
    [ -n "$index" ] || index=$(sed -n 's/^ *index[-_]url *[=:] *//p' "$file" | head -n 1)
  done
  say pip_index "$(place "$index")"
  say hf_endpoint "$(place "${HF_ENDPOINT-}")"
  say hf_home "${HF_HOME-}"
}

up_for() { read -r up _ </proc/uptime && printf %s "$up"; }

mirror() {
  say url "$1"
  if located curl >/dev/null; then
    # -q: without the user's .curlrc, which could make it write files.
    say curl "$(limited 4 curl -q -g -s -I -o /dev/null -m 3 -w '%{http_code} %{time_total}' "$1"; echo " $?")"
  elif located wget >/dev/null; then
    before=$(up_for)
    # No home: it would write down what it saw there.
    said=$(HOME=/dev/null; export HOME; limited 3 wget -q -S --spider "$1" 2>&1; echo "exit $?")
    say wget "$(printf %s "$said" | sed -n 's,^ *HTTP/[0-9.]* \([0-9]*\).*,\1,p' | tail -n 1)"
    say exit "${said##*exit }"
    say took "$before $(up_for)"
  elif python=$(located python3 || located python); then
    code='
import sys, time, urllib.error, urllib.request as r
begun, status = time.time(), 0
try: status = r.urlopen(r.Request(sys.argv[1], method="HEAD"), timeout=3).status
except urllib.error.HTTPError as e: status = e.code
sys.stdout.write("%d %.3f 0" % (status, time.time() - begun))'
    say curl "$(limited 4 "$python" -I -c "$code" "$1" | head -c 100)"
  fi
}

# --- who else is there ------------------------------------------------------------------------------------------------

sessions() {
  # A container mostly has no list of logins, in which case `who` counts none.
  [ ! -e /run/utmp ] && [ ! -e /var/run/utmp ] && [ ! -e /var/run/utmpx ] ||
    say who "$(limited "$quick" who | head -c 65536 | grep -c .)"
  [ ! -e /proc/self/cmdline ] ||
    say ptys "$(set +f; grep -l '^sshd[a-z-]*: .*@pts/' /proc/[0-9]*/cmdline | grep -c .)"
  # Asked without a server, tmux would make its folder.
  if [ -S "${TMUX_TMPDIR:-/tmp}/tmux-$(id -u)/default" ]; then
    limited "$quick" tmux -L default list-sessions -F '#{session_name}' |
      sed -n 's/^launch-/tmux launch-/p' | head -n 100
  fi
}

# ----------------------------------------------------------------------------------------------------------------------

smi=$(command -v nvidia-smi)
case $smi in /*) ;; *)
  smi=
  # There, but not to be run: so it is without a GPU.
  [ ! -e /usr/bin/nvidia-smi ] || smi=/usr/bin/nvidia-smi ;;
esac
section system system |
  also section names names "$@" |
  also section limits limits |
  also section devices devices |
  also section gpu-list smi -L |
  also section gpu-query query |
  also section gpu-apps smi --query-compute-apps=gpu_uuid,pid,used_memory,process_name --format=csv,noheader,nounits |
  also section gpu-table smi |
  also section mounts mounts |
  also section disks of d each disk -- "$@" |
  also section workspaces of w each workspace -- "$@" |
  also section paths of x exists -- "$@" |
  also section pythons of p pythons -- "$@" |
  also section tools of t tools -- "$@" |
  also section tool-versions of t tool_versions -- "$@" |
  also section network network |
  also section mirrors of u each mirror -- "$@" |
  also section sessions sessions
printf '\n@launch %s end\n' "$nonce"
