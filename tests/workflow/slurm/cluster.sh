#!/usr/bin/env bash
# One-node Slurm out of Debian packages, without systemd and without accounting, for test_slurm.py.
#   cluster.sh start FOLDER   install what is missing, configure, start; two GPUs are faked
#   cluster.sh stop FOLDER    stop what start began
# FOLDER holds configuration, state, logs and pid files. /etc/slurm gets links to it, because the jobs' own srun looks
# there; stop takes them away.
set -euo pipefail
action=$1 folder=$2
export SLURM_CONF=$folder/slurm.conf

stop() {
  local daemon pid file
  for daemon in slurmd slurmctld munged; do
    [ -s "$folder/$daemon.pid" ] || continue
    pid=$(cat "$folder/$daemon.pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
    rm -f "$folder/$daemon.pid"
  done
  for file in slurm.conf gres.conf; do
    if [ "$(readlink "/etc/slurm/$file" 2>/dev/null)" = "$folder/$file" ]; then rm -f "/etc/slurm/$file"; fi
  done
}

if [ "$action" = stop ]; then
  stop
  exit 0
fi
if [ -e /etc/slurm/slurm.conf ]; then
  echo "this machine already belongs to a Slurm cluster" >&2
  exit 3
fi
if ! command -v slurmctld >/dev/null || ! command -v munged >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null
fi

host=$(hostname -s)
memory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 * 9 / 10))
mkdir -p "$folder"/{state,spool,log,munge,socket} /etc/slurm
chmod 755 "$folder" "$folder/socket"
dd if=/dev/urandom of="$folder/munge/munge.key" bs=1024 count=1 status=none
chmod 700 "$folder/munge"
chmod 400 "$folder/munge/munge.key"
for gpu in gpu0 gpu1; do mknod "$folder/$gpu" c 1 3; done # null devices
echo "NodeName=$host Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=16817
SlurmdPort=16818
AuthType=auth/munge
AuthInfo=socket=$folder/socket/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
MinJobAge=600
KillWait=5
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
for file in slurm.conf gres.conf; do ln -s "$folder/$file" "/etc/slurm/$file"; done
munged --key-file="$folder/munge/munge.key" --socket="$folder/socket/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munge/munged.log" --seed-file="$folder/munge/munged.seed" --force
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N "$host"
for _ in $(seq 60); do
  if [ "$(timeout 3 sinfo -h -o %t 2>/dev/null)" = idle ]; then exit 0; fi
  sleep 0.5
done
tail -n 5 "$folder"/log/*.log >&2
exit 1
