// The upload server that the 2020 system had on its second port: Express with multer, files straight to disk.
const fs = require("fs");
const https = require("https");
const express = require("express");
const multer = require("multer");

const [certs, folder] = process.argv.slice(2);
const storage = multer.diskStorage({
  destination: (request, file, done) => done(null, folder),
  filename: (request, file, done) => done(null, `${file.fieldname}-${Date.now()}`),
});
const app = express();
app.post("/nodemodeluploads", multer({ storage }).array("model", 12), (request, response) =>
  response.json({ message: "file uploaded!", uploaded: true }),
);
const tls = { key: fs.readFileSync(`${certs}/server.key`), cert: fs.readFileSync(`${certs}/server.crt`) };
const server = https.createServer(tls, app);
server.listen(0, "127.0.0.1", () => console.log(`https://127.0.0.1:${server.address().port}`));
