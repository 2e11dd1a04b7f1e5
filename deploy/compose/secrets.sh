#!/bin/sh
# Makes the secrets of compose.yaml, as files beside it; those that are there are kept. The certificate is one of our own
# making, for a trial: put one of the hospital's authority in its place.
set -eu
folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
cd "$folder"

random() {
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

[ -e postgres_password ] || random >postgres_password
[ -e rabbitmq_password ] || random >rabbitmq_password
[ -e grafana_password ] || random >grafana_password
[ -e token ] || random >token
printf 'postgresql://hybridmed:%s@postgres/hybridmed' "$(cat postgres_password)" >hybridmed_database_url
printf 'amqp://hybridmed:%s@rabbitmq:5672/%%2F' "$(cat rabbitmq_password)" >hybridmed_broker_url
printf %s "$(cat token)" | sha256sum | cut -d' ' -f1 | tr -d '\n' >hybridmed_tokens
if [ ! -e tls_key ]; then
    openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=web -addext 'subjectAltName=DNS:web,DNS:localhost' \
        -keyout tls_key -out tls_certificate 2>/dev/null
fi
printf 'default_user = hybridmed\ndefault_pass = %s\n' "$(cat rabbitmq_password)" >rabbitmq.conf
# The containers' users are not this one; the folder stays closed to others.
chmod 0644 ./*
chmod 0700 .
