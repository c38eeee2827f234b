# build.sh builds it. To run:
#   docker run --restart always --name spectrogrampredictor --hostname=spectrogrampredictor -v /certs:/certs \
#     -p 443:443 -p 4443:4443 -e SIGNING_TOKEN=$SIGNING_TOKEN -dit spectrogrampredictor
# /certs must hold server.crt and server.key, readable for user id 10001.

FROM python:3.12-slim AS build
RUN python -m venv /opt/app
ENV PATH=/opt/app/bin:$PATH
WORKDIR /src
# The dependencies alone, so that a change of the code does not install TensorFlow again.
COPY setup.cfg pyproject.toml ./
RUN python -c "import configparser; c = configparser.ConfigParser(); c.read('setup.cfg'); print(c['options']['install_requires'])" \
      | pip install --no-cache-dir -r /dev/stdin
COPY . .
RUN pip install --no-cache-dir --no-deps .

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin predictor \
    && install -d -o predictor /data
COPY --from=build /opt/app /opt/app
COPY config /etc/spectrogram-predictor
ENV PATH=/opt/app/bin:$PATH \
    NUMBA_CACHE_DIR=/tmp \
    SPECTROGRAM_PREDICTOR_SERVER__HOST=0.0.0.0 \
    SPECTROGRAM_PREDICTOR_SERVER__API_PORT=443 \
    SPECTROGRAM_PREDICTOR_SERVER__UPLOAD_PORT=4443 \
    SPECTROGRAM_PREDICTOR_SERVER__CERTS=/certs \
    SPECTROGRAM_PREDICTOR_STORAGE__URL=/data
# Docker lets every user of a container bind port 443 (net.ipv4.ip_unprivileged_port_start=0 since 20.10).
USER predictor
# Where relative paths of a configuration lead, such as a bucket's var/cache: nothing else can be written to.
WORKDIR /data
EXPOSE 443 4443
VOLUME ["/certs", "/data"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "import ssl, urllib.request as u; u.urlopen('https://localhost/readyz', timeout=4, context=ssl._create_unverified_context())"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["spectrogram-predictor"]
CMD ["serve", "--config", "/etc/spectrogram-predictor/local.toml"]
