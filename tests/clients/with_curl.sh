#!/usr/bin/env bash
# Upload a file with curl: URL FILE SHA256 AUTHORIZATION.
set -u
url=$1 path=$2 sha256=$3 authorization=$4
size=$(stat -c %s "$path")
tus() { curl --silent --cacert "$CACERT" --header "Tus-Resumable: 1.0.0" "$@"; }
location=$(tus --request POST --header "Authorization: $authorization" --header "Upload-Length: $size" \
  --header "Upload-Metadata: sha256 $(printf %s "$sha256" | base64 --wrap 0)" \
  --dump-header - --output /dev/null "$url" | sed -n 's/^[Ll]ocation: \(.*\)\r$/\1/p')
upload=${url%/uploads}$location
for _ in $(seq 400); do
  offset=$(tus --head "$upload" | sed -n 's/^[Uu]pload-[Oo]ffset: \([0-9]*\)\r$/\1/p')
  if [ "$offset" = "$size" ]; then
    echo "$upload"
    exit 0
  fi
  if [ -n "$offset" ]; then
    tus --request PATCH --header "Content-Type: application/offset+octet-stream" --header "Upload-Offset: $offset" \
      --continue-at "$offset" --upload-file "$path" "$upload"
  fi
  sleep 0.2
done
exit 1
